//! Names of instances, regions and the application. They end up in headers, host names and log lines, so they are checked
//! where they come in, and need no further thought after that.

use std::{fmt, str::FromStr};

/// The id of an instance: on Fly the machine's, which is its host name as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(String);

/// A Fly region's code: `sjc`, `ams`, `syd`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(String);

/// The application's name on Fly.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppName(String);

/// A name that cannot be one label of a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 63 letters, digits, '-' or '_', got {0:?}")]
pub struct InvalidName(String);

fn checked(name: &str) -> Result<String, InvalidName> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=63).contains(&name.len()) && name.bytes().all(fits) {
        Ok(name.to_owned())
    } else {
        Err(InvalidName(name.chars().take(80).collect()))
    }
}

macro_rules! name {
    ($type:ident) => {
        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                checked(name).map(Self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(AppName);
name!(InstanceId);
name!(Region);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_a_header_and_a_host_name() {
        for good in ["sjc", "e784079b295268", "sjc-1", "my_host"] {
            assert_eq!(good.parse::<InstanceId>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a\nb", "a;b", "é", "a.b", &"x".repeat(64)] {
            assert!(bad.parse::<Region>().is_err(), "{bad:?}");
        }
    }
}
