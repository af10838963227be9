-- Requests are not, or no longer, among the open ones of their caller.
local places = places_of(TAG, arg())
for _ = 1, number() do
  vacate(places, arg())
end
