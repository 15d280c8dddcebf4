//! One transaction: a batch of clicks, each with its own result, its key and its own error.

use futures_util::StreamExt as _;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, raw_sql};

use super::{
    ClickError,
    key::{Keys, Known},
    writer::Click,
};

/// What has come of a batch.
pub(super) struct Results {
    /// The count after each click, or why it was not counted.
    pub(super) answers: Vec<Result<i64, ClickError>>,
    /// So many of them were counted before, by an earlier click with the same key.
    pub(super) repeated: usize,
    /// Whether it has certainly changed the database.
    pub(super) has_written: bool,
    /// By SQLite's number: it is another one where another connection has committed since the last batch.
    pub(super) data_version: i64,
}

/// Counts all clicks in one transaction; where they change nothing, all being repeats, it writes nothing. Where it
/// fails: what each click is told, and why. The connection is then to be closed, which ends the transaction.
///
/// Statements go together where they can, since each way to SQLite's thread and back takes longer than what it does there.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    keys: &mut Keys,
    batch: &[Click],
) -> Result<Results, (ClickError, sqlx::Error)> {
    let applied = async {
        let begin = "begin immediate; \
                     select count, data_version from counter, pragma_data_version where id = 1";
        let row = raw_sql(begin).fetch_one(&mut *connection).await?;
        let (before, data_version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let mut known = keys.known(batch, connection).await?;
        let new = batch.iter().filter(|click| click.key.as_ref().is_some_and(|key| !known.contains_key(key)));
        let new = new.count();
        let mut room = if new == 0 { 0 } else { keys.make_room(new, connection).await? };

        let results = Results {
            answers: Vec::with_capacity(batch.len()),
            repeated: 0,
            has_written: false,
            data_version,
        };
        let mut counted = Counted { count: before, results, stored: Vec::new() };
        for click in batch {
            let result = match &click.key {
                None => counted.count(click),
                Some(key) => match known.get(key) {
                    Some(known) => {
                        let answer = known.answer(click.intent);
                        counted.results.repeated += usize::from(answer.is_ok());
                        answer
                    }
                    None if room == 0 => Err(ClickError::NoRoom),
                    None => {
                        room -= 1;
                        let result = counted.count(click);
                        let this = Known::new(click.intent, result.as_ref().ok().copied());
                        known.insert(key.clone(), this);
                        counted.stored.push((key, this));
                        result
                    }
                },
            };
            counted.results.answers.push(result);
        }
        let Counted { count, mut results, stored } = counted;
        if !stored.is_empty() {
            keys.store(&stored, connection).await?;
        }
        results.has_written = count != before || !stored.is_empty();
        Ok((results, (count != before).then_some(count)))
    };
    let (results, count) = applied.await.map_err(|error: sqlx::Error| (ClickError::Failed, error))?;
    end(count, connection).await?;
    Ok(results)
}

/// Commits, with another count or without.
async fn end(count: Option<i64>, connection: &mut SqliteConnection) -> Result<(), (ClickError, sqlx::Error)> {
    let statements = match count {
        // A number needs no quotes, and what is bound goes alone.
        Some(count) => AssertSqlSafe(format!("update counter set count = {count} where id = 1; commit")),
        None => AssertSqlSafe("commit".to_owned()),
    };
    let mut left = if count.is_some() { 2 } else { 1 };
    let mut ended = raw_sql(statements).execute_many(connection);
    while let Some(statement) = ended.next().await {
        if let Err(error) = statement {
            // Where the commit has failed, that no longer means that nothing was written.
            return Err((if left == 1 { ClickError::Unknown } else { ClickError::Failed }, error));
        }
        left -= 1;
    }
    if left == 0 { Ok(()) } else { Err((ClickError::Unknown, sqlx::Error::WorkerCrashed)) }
}

/// A batch under way.
struct Counted<'a> {
    count: i64,
    results: Results,
    stored: Vec<(&'a super::key::Key, Known)>,
}

impl Counted<'_> {
    fn count(&mut self, click: &Click) -> Result<i64, ClickError> {
        let next = click.intent.on(self.count).ok_or(ClickError::OutOfRange)?;
        self.count = next;
        Ok(next)
    }
}
