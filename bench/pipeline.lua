-- Sixteen requests in a row, for `wrk -s`.
init = function()
  local request = wrk.format("GET", "/")
  row = string.rep(request, 16)
end

request = function()
  return row
end
