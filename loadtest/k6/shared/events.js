// Events as the systems before this one sent them, as JSON text. Every id names the run, the client and a number, so that
// whoever reads the log back can tell which events were this run's, and whether one is there twice.
//
// A generator that is busy making JSON measures itself: each client makes a few events of each kind when it starts, and
// sends them again and again under new ids.
import exec from 'k6/execution';
import { randomSeed } from 'k6';

/** Identifies this run in every event id. */
export const RUN = __ENV.RUN || `k6-${Date.now().toString(36)}`;

// The same seed makes the same events; each client has a sequence of its own.
randomSeed(Number(__ENV.SEED || 1) * 1000003 + __VU);

const APPS = ['com.example.puzzle', 'com.example.racer', 'io.sample.shop', 'org.test.reader'];
const TYPES = ['install', 'purchase', 'click', 'session'];
const NAMES = ['level_up', 'checkout_done', 'banner_tap', 'app_open', 'tutorial_step'];
const PLATFORMS = ['ios', 'android', 'web'];
const COUNTRIES = ['DE', 'US', 'JP', 'BR', 'IN'];
const CHANNELS = ['organic', 'social', 'café ☕', 'say "hi"'];
// Different events of a kind that a client sends in turn.
const POOL = 32;

let made = 0;

function pick(list) {
    return list[Math.floor(Math.random() * list.length)];
}

function below(limit) {
    return Math.floor(Math.random() * limit);
}

function hex(digits) {
    let text = '';
    while (text.length < digits) {
        text += below(0x100000000).toString(16).padStart(8, '0');
    }
    return text.slice(0, digits);
}

function attributionFields() {
    const fields = {
        app_id: pick(APPS),
        event_type: pick(TYPES),
        event_name: pick(NAMES),
        timestamp: 1700000000000 + below(100000000000),
        user_id: `u${hex(8)}`,
        platform: pick(PLATFORMS),
        country: pick(COUNTRIES),
        campaign_id: `c${below(100000)}`,
        channel: pick(CHANNELS),
        revenue: below(100000) / 100,
    };
    if (Math.random() < 0.35) {
        fields.session_id = `s${hex(16)}`;
    }
    if (Math.random() < 0.33) {
        fields.currency = 'EUR';
    }
    return fields;
}

function webhookFields() {
    return {
        event_type: 'payment.captured',
        event_name: 'webhook',
        timestamp: new Date(1700000000000 + below(100000000000)).toISOString(),
        revenue: below(1000000) / 100,
        currency: 'EUR',
        custom_params: {
            delivery: { id: hex(16), attempt: 1 + below(3), endpoint: '/hooks/payments' },
            payment: {
                id: `pay_${hex(8)}`,
                method: pick(['card', 'transfer', 'wallet']),
                captured: true,
                lines: [1, 2, 3].map((line) => ({ line, sku: `sku-${below(100000)}`, quantity: 1 + below(5), net: below(10000) })),
            },
            customer: { id: `cus_${hex(8)}`, country: pick(COUNTRIES), note: 'x'.repeat(400) },
        },
    };
}

/** A maker of events of one kind: `fields` are all but the id. */
function maker(fields) {
    const rests = [];
    return () => {
        made += 1;
        const at = made % POOL;
        if (rests[at] === undefined) {
            rests[at] = JSON.stringify(fields()).slice(1);
        }
        return `{"event_id":"${RUN}-${exec.vu.idInTest}-${made}",${rests[at]}`;
    };
}

/** An attribution event of about 268 bytes. */
export const attribution = maker(attributionFields);

/** What a payment provider's webhook delivers: about a kilobyte, nested. */
export const webhook = maker(webhookFields);

/** A maker of attribution events with custom parameters up to about `bytes` bytes. */
export function large(bytes) {
    // A step is 35 bytes or so.
    const steps = Math.max(0, Math.round((bytes - 280) / 35));
    const trail = () => Array.from({ length: steps }, (_, step) => ({ step, key: hex(14) }));
    return maker(() => ({ ...attributionFields(), custom_params: { trail: trail() } }));
}
