-- Sends the requests of a file, one after the other and again, and prints what became of them:
--
--     wrk --script wrk.lua http://127.0.0.1:PORT -- FILE
--
-- In FILE a NUL stands behind each request.
local requests, number = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  for request in file:read("*a"):gmatch("(%Z+)%z") do
    requests[#requests + 1] = request
  end
  file:close()
end

function request()
  number = number % #requests + 1
  return requests[number]
end

function done(summary)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  print(string.format("answers %d microseconds %d refused %d failed %d",
    summary.requests, summary.duration, errors.status, failed))
end
