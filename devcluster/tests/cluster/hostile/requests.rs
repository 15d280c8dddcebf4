//! Requests that no browser sends: each of its kind is another one, by chance.
//!
//! None of them may change the count. Where one carries a whole click, something else about it has to be refused.

use std::iter;

use fastrand::Rng;

/// What is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// LiteFS's proxy; otherwise the application's own port.
    pub is_proxy: bool,
    pub is_primary: bool,
}

/// What one connection sends.
pub struct Request {
    pub bytes: Vec<u8>,
    pub end: End,
}

/// What the attacker does when all is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Reads to the end.
    Read,
    /// Sends the connection's end, and reads.
    HalfClose,
    /// Reads the first bytes, and is gone.
    Leave,
    /// Resets the connection at once.
    Reset,
}

type Make = fn(&mut Rng, Target) -> Request;

/// All kinds. They are answered at once, or not at all.
pub const KINDS: [(&str, Make); 26] = [
    ("random bytes", random_bytes),
    ("a click with bytes changed", changed),
    ("a bad method", method),
    ("a bad version", version),
    ("a bad path", path),
    ("bad header lines", header_lines),
    ("a flood of headers", many_headers),
    ("a huge header", huge_header),
    ("a huge body with its length", huge_body),
    ("a huge body in chunks", huge_chunks),
    ("a bad length", length),
    ("a truncated body", truncated),
    ("bad chunks", chunks),
    ("smuggling", smuggled),
    ("bad cookies", cookies),
    ("a forged fly-replay-src", replay_source),
    ("a bad key", key),
    ("another content type", content_type),
    ("another site's click", other_site),
    ("a form in a wrong shape", form),
    ("a forged last event", last_event),
    ("an odd Accept", accept),
    ("Upgrade and Expect", upgrade),
    ("many at once", pipeline),
    ("a page, half closed", half_closed),
    ("a page, reset", reset),
];

const CLICK: &[u8] = b"intent=increment";
/// Not one.
const NO_CLICK: &[u8] = b"intent=reset&pad=0123456789abcdef";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// A head that is as it should be, with these header lines besides, and a body.
fn http(line: &str, headers: impl AsRef<[u8]>, body: &[u8]) -> Vec<u8> {
    let head = format!("{line} HTTP/1.1\r\nHost: counter.example\r\nConnection: close\r\n");
    [head.as_bytes(), headers.as_ref(), b"\r\n", body].concat()
}

fn post(headers: impl AsRef<[u8]>, body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n", body.len());
    http("POST /", [length.as_bytes(), headers.as_ref()].concat(), body)
}

fn read(bytes: Vec<u8>) -> Request {
    Request { bytes, end: End::Read }
}

fn bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
    iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

fn one_of<'a>(rng: &mut Rng, choice: &[&'a str]) -> &'a str {
    rng.choice(choice).expect("some")
}

/// Mostly just above the limit, seldom far above.
fn too_large(rng: &mut Rng, limit: usize) -> usize {
    let most = if rng.u8(..) < 8 { 1_500_000 } else { 4 * limit };
    rng.usize(limit + 1..most)
}

fn random_bytes(rng: &mut Rng, _: Target) -> Request {
    let length = rng.usize(1..2000);
    Request { bytes: bytes(rng, length), end: End::HalfClose }
}

fn changed(rng: &mut Rng, _: Target) -> Request {
    let mut bytes = post(FORM, NO_CLICK);
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..bytes.len());
        bytes[at] = rng.u8(..);
    }
    // It may wait for more.
    Request { bytes, end: End::HalfClose }
}

fn method(rng: &mut Rng, _: Target) -> Request {
    let long = "X".repeat(rng.usize(100..9000));
    let methods = [
        "G\0T", "get", "post", "PUT", "DELETE", "BREW", "TRACE", "OPTIONS", "CONNECT", "P(ST", "", " ", &long,
    ];
    let line = format!("{} /", one_of(rng, &methods));
    read(http(&line, format!("{FORM}Content-Length: {}\r\n", NO_CLICK.len()), NO_CLICK))
}

fn version(rng: &mut Rng, _: Target) -> Request {
    let versions = [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/9.9",
        "HTTP/1.",
        "HTTP/1.1.1",
        "http/1.1",
        "ICY/1.0",
        "",
        "\0",
    ];
    let text = match rng.u8(..4) {
        0 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(),
        1 => "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned(),
        _ => format!("GET / {}\r\nHost: x\r\nConnection: close\r\n\r\n", one_of(rng, &versions)),
    };
    Request { bytes: text.into_bytes(), end: End::HalfClose }
}

fn path(rng: &mut Rng, _: Target) -> Request {
    let long = format!("/{}", "a".repeat(rng.usize(1000..70_000)));
    let query = format!("/?{}", "a=b&".repeat(rng.usize(1..2000)));
    let paths = [
        "//",
        "/../../etc/passwd",
        "/%2e%2e%2fetc%2fpasswd",
        "/%",
        "/%zz",
        "/%00",
        "*",
        "nothing",
        "http://evil.example/",
        "http://[::1",
        "/\u{1f980}",
        "/instance",
        "/handover",
        "/litefs/health",
        "/events/",
        &long,
        &query,
    ];
    let line = format!("{} {}", one_of(rng, &["GET", "POST", "HEAD"]), one_of(rng, &paths));
    read(http(&line, "", b""))
}

fn header_lines(rng: &mut Rng, _: Target) -> Request {
    let lines = [
        "Host: other.example\r\n",
        "no colon\r\n",
        ": no name\r\n",
        "Space : before\r\n",
        "Folded: a\r\n b\r\n",
        "Nul: a\0b\r\n",
        "Bare: a\rb\r\n",
        "N\u{fc}me: x\r\n",
        "Line: only\n",
        "Control: \x01\x7f\r\n",
        "Connection: host, cookie, x\r\n",
        "Content-Encoding: gzip\r\n",
        "Range: bytes=-1-\r\n",
        "X-Forwarded-For: \"><script>\r\n",
        "TE: trailers, \0\r\n",
    ];
    let lines: String = (0..rng.usize(1..4)).map(|_| one_of(rng, &lines)).collect();
    // A trailing line feed alone may end the head, or not.
    Request { bytes: http("GET /", lines, b""), end: End::HalfClose }
}

fn many_headers(rng: &mut Rng, _: Target) -> Request {
    let two = one_of(rng, &["X: y\r\nX: y\r\n", "A: b\r\nC: d\r\n"]);
    let headers = two.repeat(rng.usize(51..2000));
    read(http("GET /", headers, b""))
}

fn huge_header(rng: &mut Rng, _: Target) -> Request {
    let value = "v".repeat(too_large(rng, 32 * 1024));
    let name =
        one_of(rng, &["Cookie", "User-Agent", "X", "Origin", "Idempotency-Key", "Accept", "fly-replay-src"]);
    read(http("GET /", format!("{name}: {value}\r\n"), b""))
}

fn huge_body(rng: &mut Rng, _: Target) -> Request {
    let body = [CLICK, b"&pad=", &vec![b'x'; too_large(rng, 4096)]].concat();
    read(post(FORM, &body))
}

fn huge_chunks(rng: &mut Rng, _: Target) -> Request {
    let length = too_large(rng, 4096);
    let size = rng.usize(1..2000);
    let mut body = format!("10\r\n{}\r\n5\r\n&pad=\r\n", "intent=increment").into_bytes();
    for _ in 0..=length / size.max(64) {
        body.extend(format!("{:x}\r\n{}\r\n", size.max(64), "x".repeat(size.max(64))).bytes());
    }
    body.extend(b"0\r\n\r\n");
    read(http("POST /", format!("{FORM}Transfer-Encoding: chunked\r\n"), &body))
}

fn length(rng: &mut Rng, _: Target) -> Request {
    let lengths = [
        "Content-Length: +16",
        "Content-Length: -16",
        "Content-Length: 0x10",
        "Content-Length: 16, 17",
        "Content-Length: 1 6",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 16.0",
        "Content-Length: 16\r\nContent-Length: 17",
        "Content-Length: sixteen",
        "Content-Length: \u{b9}6",
        "Content-Length: 16;",
    ];
    let length = one_of(rng, &lengths);
    Request { bytes: http("POST /", format!("{FORM}{length}\r\n"), CLICK), end: End::HalfClose }
}

fn truncated(rng: &mut Rng, _: Target) -> Request {
    let headers = format!("{FORM}Content-Length: {}\r\n", CLICK.len() + rng.usize(1..5000));
    let bytes = http("POST /", headers, CLICK);
    Request { bytes, end: *rng.choice(&[End::HalfClose, End::Reset]).expect("some") }
}

fn chunks(rng: &mut Rng, _: Target) -> Request {
    let long = format!("10;{}\r\nintent=increment\r\n", "e=x;".repeat(rng.usize(5000..20_000)));
    let bodies = [
        "zz\r\nintent=increment\r\n0\r\n\r\n",
        "-10\r\nintent=increment\r\n0\r\n\r\n",
        "10\r\nintent=incrementXX0\r\n\r\n",
        "10\r\nintent=increment\r\n",
        "10\r\nintent=increment\r\n0\r\n",
        "ffffffffffffffff0\r\nintent=increment\r\n0\r\n\r\n",
        "10\r\nintent=increment\r\nzz\r\n\r\n",
        "0x10\r\nintent=increment\r\n0\r\n\r\n",
        "11\r\nintent=increment\r\n0\r\n\r\n",
        "10 \0\r\nintent=increment\r\n",
        &long,
    ];
    let bytes =
        http("POST /", format!("{FORM}Transfer-Encoding: chunked\r\n"), one_of(rng, &bodies).as_bytes());
    Request { bytes, end: End::HalfClose }
}

/// Who goes by the wrong one of two framings finds a click in the body.
fn smuggled(rng: &mut Rng, _: Target) -> Request {
    let click = String::from_utf8(post(FORM, CLICK)).expect("text");
    let bytes = if rng.bool() {
        // One body by the encoding, a click after the body by the length.
        let body = format!("{:x}\r\n{click}\r\n0\r\n\r\n", click.len());
        let first = format!("{:x}\r\n", click.len()).len();
        let framing = format!("Content-Length: {first}\r\n{FORM}Transfer-Encoding: chunked\r\n");
        keep_alive(&framing, body.as_bytes())
    } else {
        // No encoding that there is; one body by the length, a click after an empty body by the encoding.
        let encodings = [
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: \"chunked\"",
            "X: y\rTransfer-Encoding: chunked",
            " Transfer-Encoding: chunked",
            "Transfer_Encoding: chunked",
        ];
        let body = format!("0\r\n\r\n{click}");
        let framing = format!("{}\r\nContent-Length: {}\r\n{FORM}", one_of(rng, &encodings), body.len());
        keep_alive(&framing, body.as_bytes())
    };
    Request { bytes, end: End::HalfClose }
}

/// The connection has to go on for what follows on the first request.
fn keep_alive(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST / HTTP/1.1\r\nHost: counter.example\r\n{headers}\r\n").as_bytes(), body].concat()
}

fn cookies(rng: &mut Rng, _: Target) -> Request {
    let long = "f".repeat(rng.usize(1000..10_000));
    let values = [
        "-1",
        "newest",
        "0000000000000000",
        "zzzzzzzzzzzzzzzz",
        "-000000000000001",
        "00000000000000001",
        "\"1\"",
        "%00",
        "",
        &long,
    ];
    let positions =
        ["ffffffffffffffff/ffffffffffffffff", "0000000000000000/0000000000000000", "/", "1/1", &long, ""];
    let cookie = format!(
        "Cookie: {}; __txid={}; position={}; a\r\n",
        one_of(rng, &["a=b", ";;;", "=", "__txid", "position"]),
        one_of(rng, &values),
        one_of(rng, &positions)
    );
    let garbage = [b"Cookie: __txid=".as_slice(), &bytes(rng, 40), b"\r\n"].concat();
    match rng.u8(..4) {
        0 => Request { bytes: http("GET /", garbage, b""), end: End::HalfClose },
        1 => read(post(format!("{FORM}{cookie}"), NO_CLICK)),
        _ => read(http("GET /", cookie, b"")),
    }
}

fn replay_source(rng: &mut Rng, target: Target) -> Request {
    let long = format!("instance={}", "a".repeat(10_000));
    let sources = [
        "",
        ";;;",
        "state=-1",
        "state=255",
        "state=256",
        "instance=../..;region=\";t=x;state=9",
        "instance=nobody;region=xxx;t=1;state=3",
        "instance=sjc-1;region=sjc;t=1;state=99999999999999999999",
        "=====",
        &long,
    ];
    let header = format!("fly-replay-src: {}\r\n", one_of(rng, &sources));
    if rng.bool() {
        return read(http("GET /", header, b""));
    }
    // A replica hands it on, or refuses it. The primary would rightly count it.
    let body = if target.is_primary { NO_CLICK } else { CLICK };
    read(post(format!("{FORM}{header}"), body))
}

fn key(rng: &mut Rng, _: Target) -> Request {
    let long = "k".repeat(rng.usize(65..10_000));
    let keys = ["", "a b", "k\u{e9}y", "\t", &long];
    let bad = one_of(rng, &keys);
    let (header, field) = ("Idempotency-Key: ", "&key=");
    read(match rng.u8(..3) {
        0 => post(format!("{FORM}{header}{bad}\r\n"), CLICK),
        1 => post(
            FORM,
            format!("intent=increment{field}{}", bad.replace('\t', "%09").replace(' ', "+")).as_bytes(),
        ),
        _ => post(format!("{FORM}{header}one\r\n"), format!("intent=increment{field}another").as_bytes()),
    })
}

fn content_type(rng: &mut Rng, _: Target) -> Request {
    let types = [
        "",
        "text/plain",
        "application/json",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded2",
        ";",
        "*/*",
        "\u{ff}",
    ];
    let headers =
        if rng.bool() { String::new() } else { format!("Content-Type: {}\r\n", one_of(rng, &types)) };
    read(post(headers, CLICK))
}

fn other_site(rng: &mut Rng, _: Target) -> Request {
    let origins = [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://counter.example.evil.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Origin: http://counter.example:1",
        "Origin: \u{1f980}",
    ];
    read(post(format!("{FORM}{}\r\n", one_of(rng, &origins)), CLICK))
}

fn form(rng: &mut Rng, _: Target) -> Request {
    let forms = [
        "",
        "&&&&",
        "=",
        "intent",
        "intent=",
        "intent=reset",
        "Intent=increment",
        "intent=increment&intent=increment",
        "intent=increment%",
        "intent=increment&a=%z0",
        "intent=increment&%ff",
        "intent[]=increment",
        "intent=increment%00",
        "{\"intent\":\"increment\"}",
        "intent=9223372036854775808",
        "intent=\u{2212}1",
        "intent=increment;",
        "intent=increment+",
    ];
    let body = match rng.u8(..8) {
        0 => {
            let length = rng.usize(1..4000);
            bytes(rng, length)
        }
        1 => "a=b&".repeat(rng.usize(1..1000)).into_bytes(),
        _ => one_of(rng, &forms).as_bytes().to_vec(),
    };
    read(post(FORM, &body))
}

fn last_event(rng: &mut Rng, _: Target) -> Request {
    let long = "f".repeat(rng.usize(1000..10_000));
    let ids = [
        "",
        "-1",
        "newest",
        "1/2/3",
        "0000000000000001",
        "/",
        "\u{ff}",
        "zzzzzzzzzzzzzzzz/zzzzzzzzzzzzzzzz",
        &long,
    ];
    let id = one_of(rng, &ids);
    let bytes = if rng.bool() {
        http("GET /events", format!("Last-Event-ID: {id}\r\n"), b"")
    } else {
        http(&format!("GET /events?last={id}"), "", b"")
    };
    Request { bytes, end: End::Leave }
}

fn accept(rng: &mut Rng, _: Target) -> Request {
    let long = "application/json;q=0.1,".repeat(rng.usize(1..400));
    let accepts = [
        "",
        ",,,",
        "application/json;q=NaN",
        "*/*;q=-1",
        "application/json; q=\"",
        "text/\0",
        "\u{ff}",
        "json",
        &long,
    ];
    Request {
        bytes: http("GET /status", format!("Accept: {}\r\n", one_of(rng, &accepts)), b""),
        end: End::HalfClose,
    }
}

fn upgrade(rng: &mut Rng, _: Target) -> Request {
    let headers = [
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Expect: 100-continue\r\n",
        "Expect: a miracle\r\n",
    ];
    let header = one_of(rng, &headers);
    Request { bytes: post(format!("{FORM}{header}"), NO_CLICK), end: End::HalfClose }
}

/// The last one ends the connection.
fn pipeline(rng: &mut Rng, _: Target) -> Request {
    let one = keep_alive(&format!("{FORM}Content-Length: {}\r\n", NO_CLICK.len()), NO_CLICK);
    let mut bytes = one.repeat(rng.usize(2..10));
    bytes.extend(http("GET /nothing", "", b""));
    read(bytes)
}

fn half_closed(rng: &mut Rng, _: Target) -> Request {
    let line = format!("GET {}", one_of(rng, &["/", "/status", "/events", "/healthcheck"]));
    Request { bytes: http(&line, "", b""), end: End::HalfClose }
}

fn reset(rng: &mut Rng, _: Target) -> Request {
    let line = format!("GET {}", one_of(rng, &["/", "/status", "/events", "/counter.js"]));
    Request { bytes: http(&line, "", b""), end: End::Reset }
}

/// What takes its time. Nothing of it is whole, or anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// A page for who has seen what there never was: LiteFS's proxy waits 5 s for it.
    FutureTxid,
    /// A byte of a head now and then.
    Head,
    /// A whole head, and a byte of its body now and then.
    Body,
    /// The same, on a connection that would be kept.
    KeptBody,
    /// Connects, and sends nothing.
    Nothing,
    /// Half of a head, and the connection's end; it stays open on this side.
    HalfClosed,
    /// A stream that is not read.
    Unread,
    /// A stream for who has seen what there never was.
    FutureEvent,
}

impl Slow {
    pub const ALL: [Slow; 8] = [
        Slow::FutureTxid,
        Slow::Head,
        Slow::Body,
        Slow::KeptBody,
        Slow::Nothing,
        Slow::HalfClosed,
        Slow::Unread,
        Slow::FutureEvent,
    ];

    /// What is sent at once.
    pub fn begin(self) -> Vec<u8> {
        match self {
            Slow::Head | Slow::HalfClosed => b"POST / HTTP/1.1\r\nHost: counter.example\r\n".to_vec(),
            Slow::Body => http("POST /", format!("{FORM}Content-Length: 4000\r\n"), CLICK),
            Slow::KeptBody => keep_alive(&format!("{FORM}Content-Length: 4000\r\n"), CLICK),
            Slow::Nothing => Vec::new(),
            Slow::Unread => http("GET /events", "", b""),
            Slow::FutureEvent => {
                http("GET /events", "Last-Event-ID: 7fffffffffffffff/0123456789abcdef\r\n", b"")
            }
            Slow::FutureTxid => http("GET /", "Cookie: __txid=7fffffffffffffff\r\n", b""),
        }
    }
}
