-- For wrk: every request has a body of so many bytes; `wrk -s body.lua URL -- 4096`.
init = function(args)
   wrk.method, wrk.path, wrk.body = "POST", "/body", string.rep("x", tonumber(args[1]))
end
