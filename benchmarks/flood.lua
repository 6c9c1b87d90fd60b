-- Has wrk send prepared requests, each with a head of its own and all with the same body.
--   wrk … -s flood.lua ADDRESS -- FILE_OF_HEADS BYTES_OF_A_HEAD FILE_OF_THE_BODY

local heads, head_bytes, count, body
local sent = 0

local function content(path)
  local file = assert(io.open(path, "rb"))
  local found = file:read("*a")
  file:close()
  return found
end

function init(arguments)
  heads = content(arguments[1])
  head_bytes = tonumber(arguments[2])
  body = content(arguments[3])
  count = #heads / head_bytes
end

function request()
  local from = (sent % count) * head_bytes
  sent = sent + 1
  return heads:sub(from + 1, from + head_bytes) .. body
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"count": %d, "took_s": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
