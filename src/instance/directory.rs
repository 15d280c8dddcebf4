//! All instances of the application, from Fly's private DNS
//! (<https://fly.io/docs/networking/private-networking/>). Only machines that are started are in it.

use hickory_resolver::{TokioResolver, net::NetError, proto::rr::RData};

use super::{Instance, InstanceId, InvalidName, Region};

/// An instance and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: InstanceId,
    /// Its region.
    pub region: Region,
}

/// Why the instances are not known.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// `FLY_APP_NAME` is not set: this is not on Fly.
    #[error("the application has no name in a private DNS: FLY_APP_NAME is not set")]
    NoApp,
    /// The look-up failed.
    #[error("looking up {name}: {error}")]
    Lookup {
        /// What was asked for.
        name: String,
        /// What went wrong.
        error: NetError,
    },
    /// The answer is not a list of instances.
    #[error("{name} does not answer with instances and regions: {text:?}")]
    Foreign {
        /// What was asked for.
        name: String,
        /// What came back.
        text: String,
    },
}

impl Instance {
    /// The host name of an instance on the private network. `None` outside Fly.
    #[must_use]
    pub fn private_address(&self, of: &InstanceId) -> Option<String> {
        self.settings.app.as_ref().map(|app| format!("{of}.vm.{app}.internal"))
    }

    /// All started instances and their regions. Asks the DNS each time, whose records live for seconds.
    pub async fn instances(&self) -> Result<Vec<Listed>, DirectoryError> {
        let app = self.settings.app.as_ref().ok_or(DirectoryError::NoApp)?;
        let name = format!("vms.{app}.internal.");
        let failed = |error| DirectoryError::Lookup { name: name.clone(), error };
        let resolver = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
        let answer = resolver.map_err(failed)?.txt_lookup(name.as_str()).await.map_err(failed)?;
        let text: String = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::TXT(txt) => Some(&txt.txt_data),
                _ => None,
            })
            .flat_map(|strings| strings.iter())
            .map(|bytes| String::from_utf8_lossy(bytes))
            .collect();
        parse(&text).map_err(|_| DirectoryError::Foreign { name, text })
    }
}

/// `"<id> <region>,<id> <region>"`; a long list comes in several strings, cut anywhere.
fn parse(text: &str) -> Result<Vec<Listed>, InvalidName> {
    let entries = text.split(',').filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (id, region) = entry.split_once(' ').unwrap_or((entry, ""));
            Ok(Listed { id: id.parse()?, region: region.parse()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_read_as_fly_lists_them() {
        let listed = parse("e784079b295268 sjc,d891265a6e9028 ams").unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[1].id.to_string(), "d891265a6e9028");
        assert_eq!(listed[1].region.to_string(), "ams");
        assert_eq!(parse("").unwrap(), []);
        assert!(parse("e784079b295268").is_err());
    }
}
