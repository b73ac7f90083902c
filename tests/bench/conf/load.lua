-- wrk's script: `-- small|mix keep|close`. The mix is ten prepared requests in one fixed order; see tests/bench/mix.py,
-- which writes them to the file named third, each preceded by its length on a line of its own.
local requests, turn = {}, 0

local function read_requests(path)
  local file = assert(io.open(path, "rb"))
  while true do
    local length = file:read("*l")
    if not length then break end
    requests[#requests + 1] = file:read(tonumber(length))
    assert(file:read(1) == "\n")
  end
  file:close()
end

function init(args)
  if args[2] == "close" then wrk.headers["Connection"] = "close" end
  if args[1] == "mix" then
    read_requests(args[3])
    request = function()
      turn = turn % #requests + 1
      return requests[turn]
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
