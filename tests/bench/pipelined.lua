-- For wrk: so many requests at once, before the first answer; `wrk -s pipelined.lua URL -- 8`.
local all
init = function(args)
   local each = {}
   for place = 1, tonumber(args[1]) do each[place] = wrk.format() end
   all = table.concat(each)
end
request = function() return all end
