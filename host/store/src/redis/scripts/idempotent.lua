local key = arg()
return idempotent(key, number())
