-- Requests from a file, in turn, each with the bytes it has there: `wrk -s cycling.lua URL -- FILE`.
-- FILE: for each request its length (4 bytes, little-endian) and its bytes, as bench/questions.py writes it. Where MARK is
-- in a request, another number takes its place every time.

local MARK = "0123456789abcdef"
local sent = 0
-- No number comes back in a later run within 18 hours.
local first_number = os.time() % 65536 * 2 ^ 32
local before, after, requests = {}, {}, {}

local function read(path)
   local file = assert(io.open(path, "rb"))
   local all = file:read("*a")
   file:close()
   local at = 1
   while at <= #all do
      local a, b, c, d = all:byte(at, at + 3)
      local length = a + 256 * (b + 256 * (c + 256 * d))
      requests[#requests + 1] = all:sub(at + 4, at + 3 + length)
      at = at + 4 + length
   end
end

function init(words)
   read(words[1])
   for n, request in ipairs(requests) do
      local first, last = request:find(MARK, 1, true)
      if first then
         before[n], after[n] = request:sub(1, first - 1), request:sub(last + 1)
      end
   end
end

function request()
   local n = sent % #requests + 1
   sent = sent + 1
   if before[n] then
      return before[n] .. string.format("%016x", first_number + sent) .. after[n]
   end
   return requests[n]
end

-- One line of JSON, after what wrk prints itself.
function done(summary, _, _)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "bytes": %d, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, summary.bytes, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout))
end
