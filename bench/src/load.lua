-- One workload: wrk calls init with what stands after `--`, request for each request, done at the end.
-- Arguments: method; the kind of key: none, v7 or random; a seed that no other run had; and, where a connection is to
-- pause between two requests, the milliseconds.

local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long sec; long usec; } bench_timeval;
  int gettimeofday(bench_timeval *now, void *zone);
]])

local now = ffi.new("bench_timeval")
local head, kind

local function bits(count)
  return math.random(0, 2 ^ count - 1)
end

local function key()
  if kind == "random" then
    return string.format("%08x-%04x-4%03x-%04x-%08x%04x",
      bits(32), bits(16), bits(12), 0x8000 + bits(14), bits(32), bits(16))
  end
  ffi.C.gettimeofday(now, nil)
  local ms = tonumber(now.sec) * 1000 + math.floor(tonumber(now.usec) / 1000)
  return string.format("%08x-%04x-7%03x-%04x-%08x%04x",
    math.floor(ms / 65536), ms % 65536, bits(12), 0x8000 + bits(14), bits(32), bits(16))
end

function init(args)
  wrk.method = args[1]
  kind = args[2]
  math.randomseed(tonumber(args[3]))
  if wrk.method == "POST" then
    wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
    wrk.body = "intent=increment"
  end
  if kind ~= "none" then
    -- All keys are of one length, so that only the end of the request differs.
    wrk.body = wrk.body .. "&key=" .. string.rep("0", 36)
  end
  local pause = tonumber(args[4])
  if pause then
    delay = function() return pause end
  end
  head = wrk.format()
  if kind ~= "none" then
    head = string.sub(head, 1, -37)
  end
end

function request()
  if kind == "none" then
    return head
  end
  return head .. key()
end

-- Latencies are in microseconds, like the duration.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"micros":%d,"median":%d,"p99":%d,"refused":%d,"broken":%d,"late":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
