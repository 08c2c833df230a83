// Endurance: 500 clients for 15 minutes, an hour (PROFILE=soak) or a day (PROFILE=day). Throughput must stay within two percent of
// its mean and, where ADMIN_URL is given, memory must stay flat: the systems before this one grew by 50 MB a minute.
import exec from 'k6/execution';
import { Trend } from 'k6/metrics';
import { attribution } from './shared/events.js';
import { ADMIN_URL, getMetrics, postBatch, postEvent, residentMib, setUp, tearDown } from './shared/server.js';
import { clients, duration, milliseconds, options as optionsOf, setting, summarise, thresholds } from './shared/scenario.js';

const PROFILES = { endurance: 15 * 60, soak: 60 * 60, day: 24 * 60 * 60 };
const PROFILE = __ENV.PROFILE || 'endurance';
const SECONDS = PROFILES[PROFILE];
if (SECONDS === undefined) {
    throw new Error(`PROFILE must be one of ${Object.keys(PROFILES).join(', ')}, not ${PROFILE}`);
}
// The run is looked at in windows; the first ones are warm-up: connections open, pools are touched for the first time.
const WINDOWS = 12;
const WARM_UP_WINDOWS = 3;
const WINDOW_MS = milliseconds(SECONDS) / WINDOWS;

const deviation = new Trend('throughput_deviation_percent');
const growth = new Trend('resident_growth_mib');

export const options = optionsOf(
    [],
    thresholds({
        errors: 0.001,
        time: {
            http_req_duration: [`p(95)<${setting('P95_MS', 100)}`, `p(99)<${setting('P99_MS', 200)}`],
            throughput_deviation_percent: [`max<=${setting('DEVIATION_PERCENT', 2)}`],
        },
        more: ADMIN_URL ? { resident_growth_mib: [`max<${setting('MEMORY_GROWTH_MIB', 16)}`] } : {},
    }),
);
options.scenarios = {
    clients: { executor: 'constant-vus', vus: clients(500), duration: duration(SECONDS), gracefulStop: '10s' },
    // One client of its own, once a window: what it remembers stays in its own memory.
    observer: {
        executor: 'constant-arrival-rate',
        exec: 'observe',
        rate: 1,
        timeUnit: `${Math.round(WINDOW_MS)}ms`,
        duration: duration(SECONDS),
        preAllocatedVUs: 1,
        maxVUs: 1,
        gracefulStop: '10s',
    },
};

export { setUp as setup, tearDown as teardown };

export default function turn() {
    postEvent(attribution());
    postBatch(Array.from({ length: 10 }, attribution));
}

let last;
let rates = [];
let residentAtFirst;

/** The end of a window: its rate against the mean of those before, and memory against the end of the warm-up. */
export function observe() {
    const now = { ms: Date.now(), events: getMetrics().events_total };
    const window = exec.scenario.iterationInTest;
    if (last && window > WARM_UP_WINDOWS) {
        rates.push((now.events - last.events) / (now.ms - last.ms));
        const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
        if (rates.length > 1) {
            deviation.add(Math.abs(rates[rates.length - 1] / mean - 1) * 100);
        }
    }
    if (ADMIN_URL && window >= WARM_UP_WINDOWS) {
        const resident = residentMib();
        residentAtFirst = residentAtFirst === undefined ? resident : residentAtFirst;
        growth.add(resident - residentAtFirst);
    }
    last = now;
}

export function handleSummary(data) {
    return summarise('endurance', data, { profile: PROFILE, memory: ADMIN_URL ? 'observed' : 'not observed: no ADMIN_URL' });
}
