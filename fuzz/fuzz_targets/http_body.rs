//! One connection's bytes: heads, chunked and counted bodies, pipelined. However they are cut on the way, the same
//! requests come out, with the same bodies, and the same error ends them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::base::Limits;
use tidegate::shard::code::HttpError;
use tidegate::shard::framing::{BodyFraming, Step};
use tidegate::shard::http::parse_head;
use tidegate::shard::request::Request;

#[derive(Debug, Default, PartialEq)]
struct Connection {
    requests: Vec<(Request, Vec<u8>)>,
    error: Option<HttpError>,
}

/// What a step did with the bytes it saw.
enum Progress {
    /// So many are done with; look at the rest.
    Advanced(usize),
    /// So many are done with; more must arrive.
    Waits(usize),
}

/// Reads the connection as it arrives in pieces of `piece` bytes. At every `give_back`-th piece of body all but its first
/// byte are given back.
fn read(bytes: &[u8], piece: usize, give_back: usize) -> Connection {
    let limits = Limits { body_bytes_max: 300, head_bytes_max: 400, ..Limits::default() };
    let mut connection = Connection::default();
    let mut body: Option<BodyFraming> = None;
    let (mut at, mut arrived, mut scanned, mut pieces) = (0, 0, 0, 0);
    loop {
        let input = &bytes[at..arrived];
        let mut is_over = false;
        let progress = match &mut body {
            None => parse_head(input, &mut scanned, &limits).and_then(|head| {
                let Some((request, head_bytes)) = head else { return Ok(Progress::Waits(0)) };
                assert!(head_bytes > 0 && head_bytes <= input.len());
                connection.requests.push((request, Vec::new()));
                body = Some(BodyFraming::new(request.framing, limits.body_bytes_max)?);
                Ok(Progress::Advanced(head_bytes))
            }),
            Some(framing) => framing.next(input).map(|step| match step {
                Step::NeedMore { consumed } => {
                    assert_eq!(consumed, input.len());
                    Progress::Waits(consumed)
                }
                Step::Done { consumed } => {
                    assert!(framing.is_done());
                    is_over = true;
                    Progress::Advanced(consumed)
                }
                Step::Data { skip, len } => {
                    assert!(len > 0);
                    pieces += 1;
                    let unused = if pieces % give_back == 0 { len - 1 } else { 0 };
                    framing.give_back(unused);
                    let used = skip + len - unused;
                    let (_, data) = connection.requests.last_mut().expect("a body has a request");
                    data.extend_from_slice(&input[skip..used]);
                    assert!(data.len() as u64 <= limits.body_bytes_max);
                    Progress::Advanced(used)
                }
            }),
        };
        if is_over {
            body = None;
        }
        match progress {
            Ok(Progress::Advanced(consumed)) => at += consumed,
            Ok(Progress::Waits(_)) if arrived == bytes.len() => return connection,
            Ok(Progress::Waits(consumed)) => {
                at += consumed;
                arrived = (arrived + piece).min(bytes.len());
            }
            Err(error) => {
                connection.error = Some(error);
                return connection;
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1), usize::MAX);
    for (piece, give_back) in [(1, usize::MAX), (7, 2), (64, 3)] {
        assert_eq!(read(bytes, piece, give_back), whole, "in pieces of {piece}");
    }
});
