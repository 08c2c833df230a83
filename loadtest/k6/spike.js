// Spike: 100 → 2000 → 100 → 3000 → 100 clients, each change at once. What counts is the calm after each spike: RECOVERY_MS after
// its end, latency and errors must be those of calm again, and nothing acknowledged may be lost.
import exec from 'k6/execution';
import { attribution } from './shared/events.js';
import { postEvent, postLines, setUp, tearDown } from './shared/server.js';
import { clients, jump, milliseconds, options as optionsOf, setting, summarise, thresholds } from './shared/scenario.js';

// Name of the phase, seconds and clients of the full shape.
const PHASES = [['before', 30, 100], ['spike', 60, 2000], ['after', 30, 100], ['spike', 60, 3000], ['after', 120, 100]];
// Where a small scale leaves little calm, half of it must do: the demand becomes stricter, not void.
const RECOVERY_MS = Math.min(setting('RECOVERY_MS', 3000), milliseconds(30) / 2);

export const options = optionsOf(
    PHASES.flatMap(([, seconds, target]) => jump(seconds, target)),
    thresholds({
        errors: 0.01,
        more: {
            'http_req_failed{phase:recovered}': ['rate<0.001'],
            'events_acked{phase:spike}': ['count>0'],
            'events_acked{phase:recovered}': ['count>0'],
        },
        time: { 'http_req_duration{phase:recovered}': [`p(95)<${setting('P95_MS', 100)}`] },
    }),
    clients(100),
);

export { setUp as setup, tearDown as teardown };

function phaseAt(elapsed) {
    let begin = 0;
    for (const [phase, seconds] of PHASES) {
        const end = begin + milliseconds(seconds);
        if (elapsed < end) {
            return phase === 'after' && elapsed >= begin + RECOVERY_MS ? 'recovered' : phase;
        }
        begin = end;
    }
    return 'recovered';
}

export default function turn() {
    // The phase in which the request is sent: one that a spike has delayed counts where it began.
    const tags = { phase: phaseAt(Date.now() - exec.scenario.startTime) };
    const events = Array.from({ length: 10 }, attribution);
    // Refusals are a right answer to a spike, and to nothing else.
    const mayRefuse = tags.phase === 'spike' || tags.phase === 'after';
    postEvent(attribution(), { tags, mayRefuse });
    postLines(events, { tags, mayRefuse });
}

export function handleSummary(data) {
    return summarise('spike', data, { recovery_ms_allowed: RECOVERY_MS });
}
