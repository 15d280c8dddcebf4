//! One transaction: a batch of clicks, each with its own result, its key and its own error.

use sqlx::{Row as _, SqliteConnection, raw_sql};

use super::{
    ClickError,
    key::{Keys, Known},
    writer::Click,
};

/// The count after each click, or why it was not counted.
pub(super) type Results = Vec<Result<i64, ClickError>>;

/// Counts all clicks in one transaction; where they change nothing, all being repeats, it writes nothing. Where it
/// fails: what each click is told, and why. The connection is then to be closed, which ends the transaction.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    keys: &mut Keys,
    batch: &[Click],
) -> Result<Results, (ClickError, sqlx::Error)> {
    let applied = async {
        // Together, since each way to SQLite's thread and back takes longer than what it does there.
        let begin = raw_sql("begin immediate; select count from counter where id = 1");
        let before: i64 = begin.fetch_one(&mut *connection).await?.try_get(0)?;
        let mut known = Keys::known(batch, connection).await?;
        let new = batch.iter().filter(|click| click.key.as_ref().is_some_and(|key| !known.contains_key(key)));
        let new = new.count();
        let mut room = if new == 0 { 0 } else { keys.make_room(new, connection).await? };

        let mut counted =
            Counted { count: before, results: Vec::with_capacity(batch.len()), stored: Vec::new() };
        for click in batch {
            let result = match &click.key {
                None => counted.count(click),
                Some(key) => match known.get(key) {
                    Some(known) => known.answer(click.intent),
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
            counted.results.push(result);
        }
        if counted.count != before {
            let update = sqlx::query("update counter set count = ? where id = 1");
            update.bind(counted.count).execute(&mut *connection).await?;
        }
        if !counted.stored.is_empty() {
            keys.store(&counted.stored, connection).await?;
        }
        Ok(counted.results)
    };
    let results = applied.await.map_err(|error: sqlx::Error| (ClickError::Failed, error))?;
    // From here on a failure no longer means that nothing was written.
    sqlx::query("commit").execute(connection).await.map_err(|error| (ClickError::Unknown, error))?;
    Ok(results)
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
