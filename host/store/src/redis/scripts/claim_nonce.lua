local digest = arg()
local now = number()
local expires = arg()
if has_nonce(digest, now) then
  return unchanged('repeated')
end
keep('once:' .. digest, expires, expires)
return done('done')
