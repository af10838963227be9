-- How many entries a block of the audit log has. `audit:from` and `audit:to` have the first and the last time of each block.
local BLOCK = 256

-- How many numbers of entries are appended at once.
local MOST = 100

-- Appends audit entries, and adds to counters.
local function records()
  local blocks, of = {}, {}
  local function keep(request)
    redis.call('RPUSH', P .. 'audit:of:' .. request, unpack(of[request]))
    of[request] = nil
  end
  for _ = 1, number() do
    local place = redis.call('INCR', P .. 'audit:n')
    local body, digest, at, request = arg(), arg(), number(), arg()
    redis.call('XADD', P .. 'audit', digits(place) .. '-0', 'b', body, 'd', digest)
    local block = digits(math.floor((place - 1) / BLOCK))
    local times = blocks[block] or { at, at }
    blocks[block] = { math.min(times[1], at), math.max(times[2], at) }
    if request ~= '' then
      of[request] = of[request] or {}
      table.insert(of[request], digits(place))
      if #of[request] == MOST then
        keep(request)
      end
    end
  end
  for block, times in pairs(blocks) do
    redis.call('ZADD', P .. 'audit:from', 'LT', digits(times[1]), block)
    redis.call('ZADD', P .. 'audit:to', 'GT', digits(times[2]), block)
  end
  for request in pairs(of) do
    keep(request)
  end
  for _ = 1, number() do
    local counter = arg()
    -- One that would overflow stays as it is, rather than that the rest of the write fails.
    redis.pcall('HINCRBY', P .. 'cnt', counter, arg())
  end
end
