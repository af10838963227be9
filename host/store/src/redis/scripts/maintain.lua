-- Removes some of what expired long ago, and says how many. No operation id: doing it twice does no harm.
return purge(number(), number())
