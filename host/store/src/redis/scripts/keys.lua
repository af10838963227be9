-- KEYS[1] is a tag in braces, such as `{cs:3}`. Every key of a script begins with it, so all of them have one hash
-- slot, but for the places of callers (`quota.lua`).
local TAG = KEYS[1]
local P = TAG .. ':'

local read = 0
local function arg()
  read = read + 1
  return ARGV[read]
end
local function number()
  return tonumber(arg())
end

-- Lua writes large numbers with an exponent.
local function digits(value)
  return string.format('%.0f', value)
end
