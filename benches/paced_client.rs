//! An open-loop client for `scripts/figures`: sends at a fixed rate and measures each answer from the moment its request
//! was due, not from when it could be sent. A server that falls behind pays for the queue (no coordinated omission).
//!
//!     paced-client ADDRESS BODY-FILE CONTENT-TYPE ACK CONNECTIONS REQUESTS-PER-SECOND SECONDS
//!
//! Prints one JSON object. Knows nothing of the server's code. Not a load generator: at rates where it is late itself
//! its `late` count says so.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// A request this far behind its time when it is sent was held up by the answer before it, or by this client.
const LATE: Duration = Duration::from_millis(1);
/// Left out at the start: connections, page tables and segments warm up.
const WARM_UP: Duration = Duration::from_secs(1);

struct Plan {
    address: String,
    request: Vec<u8>,
    connections: u32,
    per_second: f64,
    seconds: f64,
}

#[derive(Default)]
struct Tally {
    latencies_ns: Vec<u64>,
    errors: u64,
    late: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = plan_of(&arguments) else {
        let usage = "paced-client ADDRESS BODY-FILE CONTENT-TYPE ACK CONNECTIONS REQUESTS-PER-SECOND SECONDS";
        eprintln!("usage: {usage}");
        return ExitCode::from(2);
    };
    match run(&plan) {
        Ok(tally) => report(&plan, tally),
        Err(error) => {
            eprintln!("{}: {error}", plan.address);
            ExitCode::FAILURE
        }
    }
}

fn plan_of(arguments: &[String]) -> Option<Plan> {
    let [address, body, content_type, ack, connections, per_second, seconds] = arguments else { return None };
    let body = std::fs::read(body).ok()?;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: figures\r\nContent-Type: {content_type}\r\nX-Ack: {ack}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    Some(Plan {
        address: address.clone(),
        request: [head.as_bytes(), &body].concat(),
        connections: connections.parse().ok().filter(|connections| *connections > 0)?,
        per_second: per_second.parse().ok().filter(|rate| *rate > 0.0)?,
        seconds: seconds.parse().ok()?,
    })
}

fn run(plan: &Plan) -> io::Result<Tally> {
    let start = Instant::now();
    let clients: Vec<_> = (0..plan.connections)
        .map(|number| {
            let stream = TcpStream::connect(&plan.address)?;
            stream.set_nodelay(true)?;
            Ok((number, stream))
        })
        .collect::<io::Result<_>>()?;
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .map(|(number, stream)| scope.spawn(move || run_connection(plan, start, number, stream)))
            .collect();
        let mut all = Tally::default();
        for client in running {
            let tally = client.join().expect("a client does not panic")?;
            all.latencies_ns.extend(tally.latencies_ns);
            all.errors += tally.errors;
            all.late += tally.late;
        }
        Ok(all)
    })
}

fn run_connection(plan: &Plan, start: Instant, number: u32, mut stream: TcpStream) -> io::Result<Tally> {
    let interval = f64::from(plan.connections) / plan.per_second;
    // Connections take turns, so that requests are evenly spaced and not sent in bursts.
    let offset = interval * f64::from(number) / f64::from(plan.connections);
    let expected = (plan.seconds / interval) as usize + 1;
    let mut tally = Tally { latencies_ns: Vec::with_capacity(expected), ..Tally::default() };
    let mut answer = Vec::with_capacity(4096);
    for turn in 0.. {
        let due_after = offset + interval * f64::from(turn);
        if due_after > plan.seconds {
            break;
        }
        let due = start + Duration::from_secs_f64(due_after);
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        let counted = due_after >= WARM_UP.as_secs_f64();
        tally.late += u64::from(counted && due.elapsed() > LATE);
        stream.write_all(&plan.request)?;
        let accepted = read_answer(&mut stream, &mut answer)?;
        if counted {
            tally.errors += u64::from(!accepted);
            tally.latencies_ns.push(due.elapsed().as_nanos() as u64);
        }
    }
    Ok(tally)
}

/// Reads one answer with a Content-Length; whether it was a 2xx.
fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<bool> {
    answer.clear();
    let mut piece = [0; 4096];
    loop {
        let bytes = stream.read(&mut piece)?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..bytes]);
        if let Some(total) = answer_bytes(answer)
            && answer.len() >= total
        {
            return Ok(answer.starts_with(b"HTTP/1.1 2"));
        }
    }
}

/// Length of the whole answer, once its head is there.
fn answer_bytes(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    Some(head + length.unwrap_or(0))
}

fn report(plan: &Plan, mut tally: Tally) -> ExitCode {
    tally.latencies_ns.sort_unstable();
    let counted = tally.latencies_ns.len();
    let quantile_us = |q: f64| match counted {
        0 => 0.0,
        _ => tally.latencies_ns[((counted as f64 * q).ceil() as usize).clamp(1, counted) - 1] as f64 / 1_000.0,
    };
    let achieved = counted as f64 / (plan.seconds - WARM_UP.as_secs_f64());
    let line = format!(
        "{{\"offered_per_second\":{:.1},\"achieved_per_second\":{achieved:.1},\"requests\":{counted},\"errors\":{},\
         \"late\":{},\"p50_us\":{:.1},\"p90_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1}}}\n",
        plan.per_second,
        tally.errors,
        tally.late,
        quantile_us(0.5),
        quantile_us(0.9),
        quantile_us(0.99),
        quantile_us(0.999),
        quantile_us(1.0),
    );
    match io::stdout().write_all(line.as_bytes()) {
        Ok(()) if tally.errors == 0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
