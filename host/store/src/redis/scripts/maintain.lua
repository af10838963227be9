-- Removes some of what expired long ago. No operation id: doing it twice does no harm.
return purge(number(), 1000)
