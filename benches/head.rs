//! Request heads: what each request costs before its first body byte is looked at.

use divan::Bencher;
use divan::counter::BytesCount;
use tidegate::base::Limits;
use tidegate::shard::http::parse_head;

fn main() {
    divan::main();
}

const CURL: &[u8] = b"POST /v1/events HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
    Content-Type: application/json\r\nContent-Length: 300\r\n\r\n";
const LOAD_CLIENT: &[u8] =
    b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nContent-Length: 300\r\n\r\n";
const BROWSER: &[u8] = b"POST /v1/events/batch?atomic=true HTTP/1.1\r\nHost: ingest.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n\
    Accept: application/json, text/plain, */*\r\nAccept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://shop.example.com/checkout?step=3\r\n\
    Content-Type: application/json; charset=utf-8\r\nContent-Length: 4211\r\nOrigin: https://shop.example.com\r\n\
    Connection: keep-alive\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-site\r\n\
    X-Request-ID: 0f8fad5b-d9cb-469f-a165-70867728950e\r\nX-Ack: durable\r\n\r\n";

/// Who sends.
#[derive(Clone, Copy, Debug)]
enum Sender {
    LoadClient,
    Curl,
    Browser,
}

impl Sender {
    const fn head(self) -> &'static [u8] {
        match self {
            Self::LoadClient => LOAD_CLIENT,
            Self::Curl => CURL,
            Self::Browser => BROWSER,
        }
    }
}

/// A head that came whole.
#[divan::bench(args = [Sender::LoadClient, Sender::Curl, Sender::Browser])]
fn parse_whole(bencher: Bencher<'_, '_>, sender: Sender) {
    let (head, limits) = (sender.head(), Limits::default());
    bencher.counter(BytesCount::new(head.len())).bench_local(|| {
        let parsed = parse_head(divan::black_box(head), &mut 0, &limits);
        parsed.expect("it is a valid head").expect("it is complete").1
    });
}

/// A head that comes byte by byte: the whole of it must cost its length, not its square.
#[divan::bench]
fn parse_byte_by_byte(bencher: Bencher<'_, '_>) {
    let limits = Limits::default();
    bencher.counter(BytesCount::new(BROWSER.len())).bench_local(|| {
        let mut scanned = 0;
        for end in 1..BROWSER.len() {
            assert!(parse_head(divan::black_box(&BROWSER[..end]), &mut scanned, &limits).expect("valid").is_none());
        }
        parse_head(BROWSER, &mut scanned, &limits).expect("valid").expect("complete").1
    });
}
