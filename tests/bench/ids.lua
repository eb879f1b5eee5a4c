-- For wrk: every request has a target and an X-Request-Id of its own, as behind a gateway that traces.
local count = 0
request = function()
   count = count + 1
   return wrk.format("GET", "/?n=" .. count, {["X-Request-Id"] = string.format("5b1c7a%08x", count)})
end
