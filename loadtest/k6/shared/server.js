// Talking to the server, and what every answer must be like. A check that fails here is a wrong answer, whatever the load:
// the scenarios allow none. Requests without any answer are not checks but failures, and have a share that is allowed.
import http from 'k6/http';
import { check } from 'k6';
import { Counter, Rate } from 'k6/metrics';

/** The data port. */
export const BASE_URL = (__ENV.BASE_URL || 'http://127.0.0.1:8080').replace(/\/$/, '');
/** The admin port; only the endurance scenario asks it, and only if it is given. */
export const ADMIN_URL = (__ENV.ADMIN_URL || '').replace(/\/$/, '');
/** The ack level asked for, or the server's default. */
export const ACK = __ENV.ACK || '';

const TIMEOUT = __ENV.TIMEOUT || '30s';
const LINES = 'application/x-ndjson';
const JSON_TYPE = 'application/json';

const eventsAcked = new Counter('events_acked');
const rejections = new Rate('rejections');
// What was acknowledged is added, what the server counts as stored is taken off in the end: above zero, events were lost.
const ackedEventsLost = new Counter('acked_events_lost');
// One for each request, taken back with its answer or its failure. k6 forgets requests that it interrupts at the end of a
// run: without this, a server that hangs would pass.
const unanswered = new Counter('unanswered');

let asked = 0;

/** Every request of the scenarios. `body` is null where there is none. */
function ask(method, url, body, request) {
    unanswered.add(1);
    const response = http.request(method, url, body, request);
    unanswered.add(-1);
    return response;
}

function parameters(type, tags) {
    const headers = {};
    if (type) {
        headers['Content-Type'] = type;
    }
    if (ACK) {
        headers['X-Ack'] = ACK;
    }
    if (__ENV.API_KEY) {
        headers.Authorization = `Bearer ${__ENV.API_KEY}`;
    }
    asked += 1;
    headers['X-Request-ID'] = `vu${__VU}-${asked}`;
    return { headers, tags, timeout: TIMEOUT };
}

/** The body as JSON; an empty object if it is none, so that checks fail instead of the script. */
export function bodyOf(response) {
    try {
        return JSON.parse(response.body) || {};
    } catch (error) {
        return {};
    }
}

/**
 * Holds `facts` (by name, each true if it is right) against an answer. An answer that is right counts as one check of the name
 * `what`; one that is wrong names each fact that is not. One sample an answer: k6 has more to do with samples than with checks.
 */
function verify(what, facts, tags) {
    const wrong = {};
    Object.keys(facts).forEach((name) => {
        if (!facts[name]) {
            wrong[`${what}: ${name}`] = () => false;
        }
    });
    check(null, Object.keys(wrong).length > 0 ? wrong : { [what]: () => true }, tags);
}

function checkAccepted(response, body, sent, id, tags) {
    const data = body.data || {};
    verify('accepted', {
        'status 202': response.status === 202,
        success: body.success === true,
        'counts every event sent': data.accepted === sent && data.rejected === 0 && data.events_count === sent,
        'position and batch id': data.position !== undefined && data.batch_id !== undefined,
        'at the level asked for': ACK ? data.ack === ACK : data.ack !== undefined,
        'echoes the request id': body.request_id === id && response.headers['X-Request-Id'] === id,
        'timestamp in milliseconds': body.timestamp > 1.6e12,
    }, tags);
}

function checkRefused(response, tags) {
    const body = bodyOf(response);
    const wait = Number(response.headers['Retry-After']);
    verify('refused', {
        'says when to come back': Number.isInteger(wait) && wait >= 1,
        'has the error shape': hasErrorShape(body),
        'for a reason of the interface':
            ['BACKPRESSURE', 'RATE_LIMITED', 'DRAINING', 'UNAVAILABLE'].indexOf(body.code) >= 0,
    }, tags);
}

function hasErrorShape(body) {
    return body.success === false && /^[a-z_]+$/.test(body.error) && /^[A-Z_]+$/.test(body.code)
        && typeof body.message === 'string' && body.message.length > 0 && typeof body.request_id === 'string';
}

function settle(response, sent, id, tags) {
    if (response.status === 0) {
        return;
    }
    const refused = response.status === 503 || response.status === 429;
    rejections.add(refused, tags);
    if (refused) {
        checkRefused(response, tags);
        return;
    }
    const body = bodyOf(response);
    checkAccepted(response, body, sent, id, tags);
    if (response.status === 202) {
        const accepted = (body.data || {}).accepted || 0;
        eventsAcked.add(accepted, tags);
        ackedEventsLost.add(accepted);
    }
}

function post(path, type, body, sent, { tags = {}, mayRefuse = false }) {
    const request = parameters(type, tags);
    if (mayRefuse) {
        request.responseCallback = http.expectedStatuses(202, 429, 503);
    }
    const response = ask('POST', `${BASE_URL}${path}`, body, request);
    settle(response, sent, request.headers['X-Request-ID'], tags);
    return response;
}

/** Sends one event, JSON text. `mayRefuse`: 429 and 503 are no failures in this scenario. */
export function postEvent(event, options = {}) {
    return post('/v1/events', JSON_TYPE, event, 1, options);
}

/** Sends events in one request, as lines. */
export function postLines(events, options = {}) {
    return post('/v1/events', LINES, events.join('\n'), events.length, options);
}

/** Sends events in one request, in the batch envelope. */
export function postBatch(events, options = {}) {
    return post('/v1/events/batch', JSON_TYPE, `{"events":[${events.join(',')}]}`, events.length, options);
}

/** Has a JSON text sent back. */
export function postEcho(text, options = {}) {
    const response = ask('POST', `${BASE_URL}/api/echo`, text, parameters(JSON_TYPE, options.tags));
    if (response.status !== 0) {
        const right = `{"echo":${text},"message":"Echo successful"}`;
        verify('echo', { 'status 200': response.status === 200, 'what was sent': response.body === right }, options.tags);
    }
    return response;
}

/** Asks whether the server lives. */
export function getHealth(options = {}) {
    const response = ask('GET', `${BASE_URL}/health`, null, parameters('', options.tags));
    if (response.status !== 0) {
        const body = bodyOf(response);
        verify('health', {
            'status 200': response.status === 200,
            healthy: body.status === 'healthy' && body.service === 'tidegate',
        }, options.tags);
    }
    return response;
}

/** Asks whether the server wants load: under much of it, 503 is a right answer too. */
export function getReady(options = {}) {
    const request = parameters('', options.tags);
    request.responseCallback = http.expectedStatuses(200, 503);
    const response = ask('GET', `${BASE_URL}/ready`, null, request);
    if (response.status !== 0) {
        const body = bodyOf(response);
        verify('ready', {
            'status and body agree':
                (response.status === 200 && body.ready === true) || (response.status === 503 && body.ready === false),
            'names its checks': typeof body.checks === 'object' && Object.keys(body.checks).length > 0,
        }, options.tags);
    }
    return response;
}

/** The server's own summary, as parsed JSON. */
export function getMetrics(options = {}) {
    const response = ask('GET', `${BASE_URL}/api/metrics`, null, parameters('', options.tags));
    const body = bodyOf(response);
    if (response.status !== 0) {
        verify('metrics', {
            'status 200': response.status === 200,
            'counts events': Number.isInteger(body.events_total) && body.events_total >= 0,
        }, options.tags);
    }
    return body;
}

/** Resident memory of the server in MiB, from the admin port; undefined if it does not say. */
export function residentMib() {
    const text = ask('GET', `${ADMIN_URL}/metrics`, null, { tags: { name: 'admin' } }).body || '';
    const found = /^process_resident_memory_bytes (\S+)$/m.exec(text);
    return found ? Number(found[1]) / 1048576 : undefined;
}

/** Before the load: the server answers, refuses what is wrong in the promised shape, and says what it has stored so far. */
export function setUp() {
    const reached = http.get(`${BASE_URL}/health`);
    if (reached.status === 0) {
        throw new Error(`no server at ${BASE_URL}: ${reached.error}`);
    }
    probe('POST', '/v1/events', LINES, 'not JSON', 400, 'INVALID_JSON');
    probe('POST', '/v1/events', JSON_TYPE, '[]', 400, 'EMPTY_BATCH');
    probe('POST', '/v1/events', 'text/plain', '{}', 415, 'UNSUPPORTED_MEDIA_TYPE');
    probe('GET', '/v1/events', '', null, 405, 'METHOD_NOT_ALLOWED');
    probe('GET', '/v1/nothing', '', null, 404, 'NOT_FOUND');
    probePartly();
    return { stored: getMetrics().events_total };
}

function probe(method, path, type, body, status, code) {
    const request = parameters(type, { name: 'probe' });
    request.responseCallback = http.expectedStatuses(status);
    const response = http.request(method, `${BASE_URL}${path}`, body, request);
    const answer = bodyOf(response);
    verify('probe', {
        [`${status} ${code}`]: response.status === status && answer.code === code,
        [`error shape of ${code}`]: hasErrorShape(answer),
    });
}

/** A batch with one bad event keeps the good ones. They are counted before the run, so none is missed afterwards. */
function probePartly() {
    const body = '{"probe":1}\n{"probe":\n{"probe":3}';
    const response = http.post(`${BASE_URL}/v1/events`, body, parameters(LINES, { name: 'probe' }));
    const data = bodyOf(response).data || {};
    const first = (data.errors || [])[0] || {};
    verify('probe', {
        'valid events of a batch are accepted': response.status === 202 && data.accepted === 2 && data.rejected === 1,
        'the invalid one is named': first.index === 1 && first.code === 'INVALID_JSON',
    });
}

/** After the load: the server still lives, and has stored what it acknowledged. */
export function tearDown(before) {
    getHealth();
    const stored = getMetrics().events_total - before.stored;
    verify('afterwards', { 'the server counts what it stored': stored >= 0 });
    if (stored >= 0) {
        ackedEventsLost.add(-stored);
    }
}
