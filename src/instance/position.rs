//! Transaction numbers: how far this node is, waiting until it is far enough, and the visitor's cookies.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
    str::FromStr,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use tokio::{sync::watch, task, time};

use super::Instance;

/// The cookie in which LiteFS's proxy remembers a visitor's last transaction.
const COOKIE: &str = "__txid";
/// The application's own, with the checksum.
const POSITION_COOKIE: &str = "position";
/// As long as LiteFS's own. A node that is behind for longer shows a visitor older data after that.
const COOKIE_AGE: Duration = Duration::from_mins(5);

/// The length of what LiteFS writes into `<database>-pos`, in bytes: both numbers, a slash, an end of line.
const POSITION: usize = 34;

/// The number of a transaction: grows by one with each, on the primary; replicas follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(pub u64);

/// How far a node's database is. Two nodes that wrote apart from each other can share a number, but hardly both: only
/// where they wrote the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last transaction that can be seen here.
    pub txid: Txid,
    /// The checksum of the whole database after it.
    pub checksum: u64,
}

/// Not 16 hexadecimal digits, as LiteFS writes a transaction number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 16 hexadecimal digits, got {0:?}")]
pub struct InvalidTxid(String);

/// LiteFS's report of the next transaction on this node: see [`Instance::next_transaction`].
#[derive(Debug)]
pub struct NextTransaction {
    reports: watch::Receiver<Option<Position>>,
    after: Txid,
}

/// A transaction did not arrive in time.
#[derive(Debug, thiserror::Error)]
#[error("this node is at {reached:?} and did not reach {wanted} within {} ms", .within.as_millis())]
pub struct Late {
    /// The transaction that was waited for.
    pub wanted: Txid,
    /// Where this node is; `None`: it has no database yet.
    pub reached: Option<Txid>,
    /// How long was waited.
    pub within: Duration,
}

impl Instance {
    /// How far this node's database is, from LiteFS's `<database>-pos`. `None`: there is no database yet, or no LiteFS.
    ///
    /// Fails where LiteFS's directory cannot be read: LiteFS died, or its file is not what LiteFS writes.
    pub async fn position(&self) -> io::Result<Option<Position>> {
        let Some(litefs) = &self.settings.litefs else { return Ok(None) };
        let file = litefs.dir.join(format!("{}-pos", litefs.database));
        match task::spawn_blocking(move || read_position(&file)).await? {
            Ok(position) => Ok(Some(position)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How far this node's database is, as LiteFS reports it: after a transaction can be seen here. For code that reacts to
    /// each; some may be skipped, the newest is not.
    #[must_use]
    pub fn watch_position(&self) -> watch::Receiver<Option<Position>> {
        self.litefs.position.clone()
    }

    /// To be asked for before a transaction is committed at `now`: where the database is after it, by LiteFS's report, which is on
    /// its way as soon as it is committed. It costs less than to ask, which takes a few calls through FUSE.
    ///
    /// `None` where the last report is not `now`: those of before may be on their way still. A report says nothing of who has
    /// committed: the caller has to know that nobody else did since `now`.
    #[must_use]
    pub fn next_transaction(&self, now: Position) -> Option<NextTransaction> {
        let reports = self.watch_position();
        let is_told = *reports.borrow() == Some(now);
        is_told.then_some(NextTransaction { reports, after: now.txid })
    }

    /// Waits until this node has `wanted`, so that what is read next is not older. Without LiteFS there is nothing
    /// to wait for.
    pub async fn reach(&self, wanted: Txid, within: Duration) -> Result<(), Late> {
        if !self.is_replicated() {
            return Ok(());
        }
        let mut position = self.watch_position();
        let reached = position.wait_for(|at| at.is_some_and(|at| at.txid >= wanted));
        if time::timeout(within, reached).await.is_ok() {
            return Ok(());
        }
        let reached = position.borrow().map(|at| at.txid);
        Err(Late { wanted, reached, within })
    }
}

impl NextTransaction {
    /// `None` where there is no report in time.
    pub async fn reported(mut self, within: Duration) -> Option<Position> {
        let after = self.after;
        let reported = self.reports.wait_for(|at| at.is_some_and(|at| at.txid > after));
        *time::timeout(within, reported).await.ok()?.ok()?
    }
}

/// With one `read`: each call goes through FUSE, and a click may wait for it.
fn read_position(file: &Path) -> io::Result<Position> {
    let mut text = [0; POSITION];
    let length = File::open(file)?.read(&mut text)?;
    let text = str::from_utf8(&text[..length]).map_err(io::Error::other)?;
    text.trim_end().parse().map_err(io::Error::other)
}

impl Txid {
    /// The transaction that a visitor has seen, from the request's cookies; what is not one counts as none.
    #[must_use]
    pub fn from_cookies(headers: &HeaderMap) -> Option<Self> {
        from_cookies(headers, COOKIE)
    }

    /// The value of a `Set-Cookie` header: on any node, this visitor's next reads wait for this transaction.
    #[must_use]
    pub fn set_cookie(self) -> HeaderValue {
        set_cookie(COOKIE, self)
    }

    /// The value of a `Set-Cookie` header that makes the visitor's browser forget what it has seen.
    #[must_use]
    pub fn remove_cookie() -> HeaderValue {
        const FORGET: &str = "__txid=; Path=/; Max-Age=0; HttpOnly";
        HeaderValue::from_static(FORGET)
    }
}

/// In a cookie that LiteFS does not know: its own has no checksum.
impl Position {
    /// The position that a visitor has seen, from the request's cookies; what is not one counts as none.
    #[must_use]
    pub fn from_cookies(headers: &HeaderMap) -> Option<Self> {
        from_cookies(headers, POSITION_COOKIE)
    }

    /// The value of a `Set-Cookie` header: it tells any node by which history this visitor's transaction is.
    #[must_use]
    pub fn set_cookie(self) -> HeaderValue {
        set_cookie(POSITION_COOKIE, self)
    }
}

fn from_cookies<T: FromStr>(headers: &HeaderMap, cookie: &str) -> Option<T> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == cookie)
        .and_then(|(_, value)| value.parse().ok())
}

fn set_cookie(cookie: &str, value: impl fmt::Display) -> HeaderValue {
    let value = format!("{cookie}={value}; Path=/; Max-Age={}; HttpOnly", COOKIE_AGE.as_secs());
    HeaderValue::try_from(value).expect("hexadecimal digits and fixed text are visible ASCII")
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// As LiteFS writes it.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.txid, self.checksum)
    }
}

impl FromStr for Txid {
    type Err = InvalidTxid;

    fn from_str(text: &str) -> Result<Self, InvalidTxid> {
        hexadecimal(text).map(Self)
    }
}

impl FromStr for Position {
    type Err = InvalidTxid;

    fn from_str(text: &str) -> Result<Self, InvalidTxid> {
        let (txid, checksum) = text.split_once('/').ok_or_else(|| invalid(text))?;
        Ok(Self { txid: txid.parse()?, checksum: hexadecimal(checksum)? })
    }
}

fn hexadecimal(text: &str) -> Result<u64, InvalidTxid> {
    // `from_str_radix` alone would take a sign.
    if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(invalid(text));
    }
    u64::from_str_radix(text, 16).map_err(|_| invalid(text))
}

fn invalid(text: &str) -> InvalidTxid {
    InvalidTxid(text.chars().take(40).collect())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{LiteFs, Settings},
        *,
    };

    #[test]
    fn a_position_is_read_as_litefs_writes_it() {
        let position: Position = "000000000000001f/c9d1a2b3c4d5e6f7".parse().unwrap();
        assert_eq!(position, Position { txid: Txid(31), checksum: 0xc9d1_a2b3_c4d5_e6f7 });
        assert_eq!(position.txid.to_string(), "000000000000001f");
        for bad in ["", "1f", "+00000000000001f", "000000000000001f", "000000000000001g/0000000000000000"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }

    /// And what LiteFS reports to it.
    fn instance() -> (Instance, watch::Sender<Option<Position>>) {
        let mut instance = Instance::start(Settings {
            id: "a".parse().unwrap(),
            region: "sjc".parse().unwrap(),
            app: None,
            primary_region: None,
            litefs: Some(LiteFs {
                dir: "/nowhere".into(),
                database: "sqlite.db".to_owned(),
                url: "http://127.0.0.1:1".to_owned(),
                consul: None,
            }),
        });
        let (at, position) = watch::channel(None);
        instance.litefs.position = position;
        (instance, at)
    }

    #[tokio::test]
    async fn the_next_transaction_is_the_first_report_after_this_one() {
        let (instance, report) = instance();
        let at = |txid, checksum| Position { txid: Txid(txid), checksum };
        report.send_replace(Some(at(5, 50)));
        // Reports of before may be on their way, or of another history.
        for now in [at(6, 60), at(4, 40), at(5, 51)] {
            assert!(instance.next_transaction(now).is_none(), "{now}");
        }
        let next = || instance.next_transaction(at(5, 50)).unwrap();
        let (soon, late) = (next(), next().reported(Duration::from_millis(20)).await);
        assert_eq!(late, None);
        let reports = async {
            for told in [at(4, 40), at(5, 50), at(6, 60)] {
                report.send_replace(Some(told));
                tokio::task::yield_now().await;
            }
        };
        let (reported, ()) = tokio::join!(soon.reported(Duration::from_secs(20)), reports);
        assert_eq!(reported, Some(at(6, 60)));
    }

    #[tokio::test]
    async fn a_transaction_is_waited_for_and_not_for_ever() {
        let (instance, at) = instance();
        let late = instance.reach(Txid(2), Duration::from_millis(20)).await;
        assert!(matches!(late, Err(Late { wanted: Txid(2), reached: None, .. })), "{late:?}");

        at.send_replace(Some(Position { txid: Txid(1), checksum: 1 }));
        let reached = instance.reach(Txid(2), Duration::from_secs(20));
        let arrival = async { at.send_replace(Some(Position { txid: Txid(2), checksum: 2 })) };
        let (reached, _) = tokio::join!(reached, arrival);
        reached.unwrap();
    }

    #[test]
    fn the_cookie_is_found_among_others_and_nonsense_counts_as_none() {
        let seen = |cookie: &str| {
            Txid::from_cookies(&HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]))
        };
        assert_eq!(seen("a=b; __txid=00000000000000ff; c=d"), Some(Txid(255)));
        assert_eq!(seen("__txid=newest"), None);
        assert_eq!(seen("a=b"), None);
        assert_eq!(Txid::from_cookies(&HeaderMap::new()), None);
    }

    #[test]
    fn a_cookie_that_is_set_is_read_back() {
        let cookie = Txid(7).set_cookie();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().parse().unwrap();
        assert_eq!(Txid::from_cookies(&HeaderMap::from_iter([(header::COOKIE, pair)])), Some(Txid(7)));

        let position = Position { txid: Txid(7), checksum: 9 };
        let cookie = position.set_cookie();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().parse().unwrap();
        assert_eq!(Position::from_cookies(&HeaderMap::from_iter([(header::COOKIE, pair)])), Some(position));
    }
}
