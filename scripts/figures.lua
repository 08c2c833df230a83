-- wrk: posts one prebuilt body over and over. FIGURES_BODY is its file, FIGURES_TYPE its content type, FIGURES_ACK the
-- ack level asked for. wrk builds the request once, before the run. It is closed-loop: each connection sends its next
-- request when the last is answered, so its latencies leave out what a queue would have cost.
local file = assert(io.open(os.getenv("FIGURES_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.path = "/v1/events"
wrk.headers["Content-Type"] = os.getenv("FIGURES_TYPE")
wrk.headers["X-Ack"] = os.getenv("FIGURES_ACK")

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"requests":%d,"seconds":%.6f,"per_second":%.1f,"not_2xx":%d,"socket_errors":%d,"p50_us":%d,"p99_us":%d}\n',
      summary.requests, summary.duration / 1e6, summary.requests / (summary.duration / 1e6), errors.status,
      errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(50), latency:percentile(99)))
end
