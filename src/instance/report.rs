//! What any instance's LiteFS says of itself, for people who look on. Nothing is decided by it.

use std::time::Duration;

use super::{Instance, InstanceId, Position, Role, Unreachable, litefs::Api, peers};

/// One instance at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it takes itself for.
    pub role: Role,
    /// How far its database is. `None`: it has none yet, or no LiteFS.
    pub position: Option<Position>,
    /// How old the primary's last word is there. LiteFS sends one each second, so up to a second means nothing. `None` on
    /// the primary, and without LiteFS.
    pub lag: Option<Duration>,
}

/// To ask one instance again and again, over the same connections.
#[derive(Clone, Debug)]
pub struct Observer {
    of: InstanceId,
    /// And the database's name. `None`: there is no LiteFS.
    litefs: Option<(Api, String)>,
}

impl Instance {
    /// For this instance or another one. `None`: the other one has no name on a private network.
    #[must_use]
    pub fn observer(&self, of: &InstanceId) -> Option<Observer> {
        let litefs = match &self.settings.litefs {
            None => None,
            Some(litefs) => {
                let is_this = of == self.id();
                let url = if is_this { litefs.url.clone() } else { peers::litefs_url(self, of)? };
                Some((Api::new(url), litefs.database.clone()))
            }
        };
        Some(Observer { of: of.clone(), litefs })
    }
}

impl Observer {
    /// Asks now.
    pub async fn report(&self) -> Result<Report, Unreachable> {
        let Some((litefs, database)) = &self.litefs else {
            return Ok(Report { role: Role::Standalone, position: None, lag: None });
        };
        let asked = tokio::try_join!(litefs.lease(), litefs.state(database), litefs.lag());
        let (lease, state, lag) =
            asked.map_err(|error| Unreachable { url: litefs.url().to_owned(), reason: error.to_string() })?;
        let role = Role::of(lease, &self.of);
        let lag = (role != Role::Primary).then_some(lag);
        Ok(Report { role, position: state.position, lag })
    }
}
