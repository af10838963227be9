-- Appends audit entries and counts, alone or with a nonce.
local nonce = nonce()
if nonce and nonce.repeated then
  return unchanged('repeated')
end
keep_nonce(nonce)
records()
return done('done')
