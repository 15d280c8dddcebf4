//! Keys: a click that comes with one is counted once, however often it is sent.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{ClickError, Intent, writer::Click};

/// None younger is removed: a click is repeated within minutes, if at all.
const YOUNGEST: Duration = Duration::from_mins(10);
/// The fewest keys that are looked at for removal in one transaction. With each new key two old ones can go, so that
/// removing keeps up with counting.
const FEWEST: usize = 64;

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
    /// One that nobody has used. It begins with the time, which keeps new keys beside each other in the index.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7().to_string().into())
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

/// The table of keys, as the writer keeps it.
#[derive(Debug)]
pub(super) struct Keys {
    keep: Keep,
    stored: u64,
    /// When the oldest was stored, in seconds since 1970.
    oldest: Option<i64>,
}

impl Keys {
    pub(super) async fn load(keep: Keep, connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        // They are removed from the low end alone, so that the ends tell the number.
        let ends = "select coalesce(max(id) - min(id) + 1, 0) from click";
        let stored: i64 = sqlx::query_scalar(ends).fetch_one(&mut *connection).await?;
        let mut keys = Self { keep, stored: u64::try_from(stored).unwrap_or_default(), oldest: None };
        keys.look_for_the_oldest(connection).await?;
        Ok(keys)
    }

    /// What is known of the keys in this batch.
    pub(super) async fn known(
        batch: &[Click],
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<HashMap<Key, Known>> {
        let keys: Vec<&str> = batch.iter().filter_map(|click| Some(&*click.key.as_ref()?.0)).collect();
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        // One statement for all: each has its price, whatever it does.
        let found =
            "select click.key, step, result from json_each(?) given join click on click.key = given.value";
        let found: Vec<(String, i64, Option<i64>)> =
            sqlx::query_as(found).bind(json(&keys)).fetch_all(connection).await?;
        Ok(found.into_iter().map(|(key, step, result)| (Key(key.into()), Known { step, result })).collect())
    }

    /// How many new keys fit in, once what is old enough has been removed to make room for `wanted`.
    pub(super) async fn make_room(
        &mut self,
        wanted: usize,
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<u64> {
        let now = now();
        let overdue = |age: Duration| now - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let wanted_in_all = self.stored + wanted as u64;
        let age = if wanted_in_all > self.keep.most { YOUNGEST } else { self.keep.age.max(YOUNGEST) };
        if self.oldest.is_some_and(|oldest| oldest < overdue(age)) {
            self.remove(overdue(age), FEWEST.max(2 * wanted), connection).await?;
        }
        Ok(self.keep.most.saturating_sub(self.stored))
    }

    pub(super) async fn store(
        &mut self,
        new: &[(&Key, Known)],
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<()> {
        let rows: Vec<_> = new.iter().map(|(key, known)| (&*key.0, known.step, known.result)).collect();
        let insert = "insert into click (key, step, result, created) \
                      select value ->> 0, value ->> 1, value ->> 2, ? from json_each(?)";
        let now = now();
        sqlx::query(insert).bind(now).bind(json(&rows)).execute(connection).await?;
        self.stored += new.len() as u64;
        self.oldest.get_or_insert(now);
        Ok(())
    }

    /// Removes those that were stored before `time`, `most` of them at most.
    async fn remove(
        &mut self,
        time: i64,
        most: usize,
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<()> {
        let oldest: Vec<(i64, i64)> = sqlx::query_as("select id, created from click order by id limit ?")
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await?;
        let overdue = oldest.iter().take_while(|(_, created)| *created < time);
        if let Some((last, _)) = overdue.last() {
            let removed =
                sqlx::query("delete from click where id <= ?").bind(last).execute(&mut *connection).await?;
            self.stored = self.stored.saturating_sub(removed.rows_affected());
        }
        self.look_for_the_oldest(connection).await
    }

    async fn look_for_the_oldest(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let oldest = sqlx::query_scalar("select created from click order by id limit 1");
        self.oldest = oldest.fetch_optional(connection).await?;
        Ok(())
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
