//! Keys: a click that comes with one is counted once, however often it is sent.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher as _, RandomState},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::TryStreamExt as _;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{ClickError, Intent, writer::Click};

/// None younger is removed: a click is repeated within minutes, if at all.
const YOUNGEST: Duration = Duration::from_mins(10);
/// The most clicks in one row: as many as a page of the database holds, with keys of 36 characters.
const ROW: usize = 64;

/// Names one click of one visitor: 1 to 64 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Box<str>);

/// Not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 64 visible ASCII characters")]
pub struct InvalidKey;

/// How many keys are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// At least ten minutes, whatever is set here.
    pub age: Duration,
    /// Where this many are younger than ten minutes, clicks with new ones are refused.
    pub most: u64,
}

impl Key {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One that nobody has used.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let visible = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if visible { Ok(Self(text.into())) } else { Err(InvalidKey) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key has stood for since it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    step: i64,
    result: Option<i64>,
}

/// The keys that are stored. The table is a log without an index of keys, which through LiteFS would cost more than all
/// else in a transaction; the one writer has the index in memory.
#[derive(Debug)]
pub(super) struct Keys {
    keep: Keep,
    /// In which row of the log a key is, by its fingerprint.
    rows: HashMap<u64, i64>,
    /// Nobody outside can tell which keys would share a fingerprint.
    fingerprints: RandomState,
    /// The row that comes next.
    next: i64,
    /// When the oldest row was stored, in seconds since 1970.
    oldest: Option<i64>,
}

impl Keys {
    pub(super) async fn load(keep: Keep, connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        let fingerprints = RandomState::new();
        let mut keys = Self { keep, rows: HashMap::new(), fingerprints, next: 1, oldest: None };
        let mut rows = sqlx::query_as("select id, created, clicks from batch order by id").fetch(connection);
        while let Some((id, created, clicks)) = rows.try_next().await? {
            let clicks: String = clicks;
            for (key, ..) in parse(&clicks)? {
                keys.remember(&key, id)?;
            }
            keys.next = id + 1;
            keys.oldest.get_or_insert(created);
        }
        Ok(keys)
    }

    /// What is known of the keys in this batch, and perhaps of others.
    pub(super) async fn known(
        &self,
        batch: &[Click],
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<HashMap<Key, Known>> {
        let keys = batch.iter().filter_map(|click| click.key.as_ref());
        let rows: HashSet<i64> =
            keys.filter_map(|key| self.rows.get(&self.fingerprint(&key.0)).copied()).collect();
        let mut known = HashMap::new();
        if rows.is_empty() {
            return Ok(known);
        }
        // One statement for all: each has its price, whatever it does.
        let found = "select clicks from batch where id in (select value from json_each(?))";
        let found: Vec<String> = sqlx::query_scalar(found).bind(json(&rows)).fetch_all(connection).await?;
        for clicks in found {
            let clicks = parse(&clicks)?.into_iter();
            known.extend(clicks.map(|(key, step, result)| (Key(key.into()), Known { step, result })));
        }
        Ok(known)
    }

    /// How many new keys fit in, once what is old enough has been removed to make room for `wanted`.
    pub(super) async fn make_room(
        &mut self,
        wanted: usize,
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<u64> {
        let now = now();
        let overdue = |age: Duration| now - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        // For each new row two old ones can go, so that removing keeps up with counting.
        let (mut age, mut most) = (self.keep.age.max(YOUNGEST), 2 * wanted.div_ceil(ROW));
        if self.stored() + wanted as u64 > self.keep.most {
            (age, most) = (YOUNGEST, most.max(wanted));
        }
        if self.oldest.is_some_and(|oldest| oldest < overdue(age)) {
            self.remove(overdue(age), most, connection).await?;
        }
        Ok(self.keep.most.saturating_sub(self.stored()))
    }

    pub(super) async fn store(
        &mut self,
        new: &[(&Key, Known)],
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<()> {
        let clicks: Vec<_> = new.iter().map(|(key, known)| (&*key.0, known.step, known.result)).collect();
        let rows: Vec<_> = clicks.chunks(ROW).collect();
        let insert = "insert into batch (id, created, clicks) select ? + key, ?, value from json_each(?)";
        let now = now();
        sqlx::query(insert).bind(self.next).bind(now).bind(json(&rows)).execute(connection).await?;
        for clicks in rows {
            for (key, ..) in clicks {
                self.remember(key, self.next)?;
            }
            self.next += 1;
        }
        self.oldest.get_or_insert(now);
        Ok(())
    }

    /// Removes rows that were stored before `time`, `most` of them at most.
    async fn remove(
        &mut self,
        time: i64,
        most: usize,
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<()> {
        let oldest: Vec<(i64, i64, String)> =
            sqlx::query_as("select id, created, clicks from batch order by id limit ?")
                .bind(i64::try_from(most).unwrap_or(i64::MAX))
                .fetch_all(&mut *connection)
                .await?;
        let overdue = oldest.iter().take_while(|(_, created, _)| *created < time);
        let mut last = None;
        for (id, _, clicks) in overdue {
            for (key, ..) in parse(clicks)? {
                self.rows.remove(&self.fingerprint(&key));
            }
            last = Some(id);
        }
        sqlx::query("delete from batch where id <= ?").bind(last).execute(&mut *connection).await?;
        let oldest = sqlx::query_scalar("select created from batch order by id limit 1");
        self.oldest = oldest.fetch_optional(connection).await?;
        Ok(())
    }

    fn stored(&self) -> u64 {
        self.rows.len() as u64
    }

    fn fingerprint(&self, key: &str) -> u64 {
        self.fingerprints.hash_one(key)
    }

    /// Fails where another key has the same fingerprint: of a million keys once in some 40 million times. The writer then
    /// loads the keys again, with other fingerprints.
    fn remember(&mut self, key: &str, row: i64) -> sqlx::Result<()> {
        match self.rows.insert(self.fingerprint(key), row) {
            None => Ok(()),
            Some(_) => Err(sqlx::Error::Protocol("two keys have the same fingerprint".to_owned())),
        }
    }
}

impl Known {
    pub(super) fn new(intent: Intent, result: Option<i64>) -> Self {
        Self { step: intent.step(), result }
    }

    /// The answer to a click with a key that is known.
    pub(super) fn answer(self, intent: Intent) -> Result<i64, ClickError> {
        if self.step != intent.step() {
            return Err(ClickError::OtherIntent);
        }
        self.result.ok_or(ClickError::OutOfRange)
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What a row holds: keys, steps and results.
fn parse(clicks: &str) -> sqlx::Result<Vec<(String, i64, Option<i64>)>> {
    serde_json::from_str(clicks).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("text and numbers can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_visible_text() {
        for good in ["a", "0198c0de-0000-7000-8000-000000000000", &"~".repeat(64), "\"';--"] {
            assert_eq!(good.parse::<Key>().unwrap().to_string(), good);
        }
        for bad in ["", " ", "a b", "é", "a\n", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Key>(), Err(InvalidKey), "{bad:?}");
        }
        assert_ne!(Key::fresh(), Key::fresh());
        Key::fresh().to_string().parse::<Key>().unwrap();
    }
}
