//! Reads the `fly-replay` header: `region="iad,any";timeout=10s;fallback=force_self`.

use std::{str::FromStr, time::Duration};

use super::route::{Route, regions};

/// Where an instance wants its request to go instead.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Replay {
    /// `instance`, `prefer_instance` and `region`.
    pub route: Route,
    /// Not back to the instance that says so.
    pub elsewhere: bool,
    /// Another app, or this one.
    pub app: Option<String>,
    /// Handed on in `fly-replay-src`.
    pub state: Option<String>,
    /// How long to try, if not the edge's own patience.
    pub timeout: Option<Duration>,
    /// Whom to ask when the target is not reached.
    pub fallback: Option<Fallback>,
}

/// Who gets the request when a replay's target is not reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fallback {
    /// The instance that issued the replay, or nobody.
    ForceSelf,
    /// That instance, or any other.
    PreferSelf,
}

impl FromStr for Replay {
    type Err = String;

    /// A field that the edge does not know is an error: better than a replay that quietly goes elsewhere.
    fn from_str(header: &str) -> Result<Replay, String> {
        let mut replay = Replay::default();
        for field in fields(header) {
            let (name, value) = field.split_once('=').ok_or_else(|| format!("{field:?} has no value"))?;
            let value = unquoted(value.trim());
            match name.trim() {
                "instance" => replay.route.only = Some(value.to_owned()),
                "prefer_instance" => replay.route.preferred = Some(value.to_owned()),
                "region" => replay.route.regions = regions(value),
                "app" => replay.app = Some(value.to_owned()),
                "state" => replay.state = Some(value.to_owned()),
                "elsewhere" => replay.elsewhere = value == "true",
                "timeout" => replay.timeout = Some(duration(value)?),
                "fallback" => replay.fallback = Some(value.parse()?),
                other => return Err(format!("the field {other:?} is unknown")),
            }
        }
        if replay == Replay::default() {
            return Err("it says nothing".to_owned());
        }
        Ok(replay)
    }
}

impl FromStr for Fallback {
    type Err = String;

    fn from_str(value: &str) -> Result<Fallback, String> {
        match value {
            "force_self" => Ok(Fallback::ForceSelf),
            "prefer_self" => Ok(Fallback::PreferSelf),
            other => Err(format!("the fallback {other:?} is unknown")),
        }
    }
}

/// The parts between semicolons, save those inside quotes.
fn fields(header: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    header
        .split(move |character| {
            quoted ^= character == '"';
            character == ';' && !quoted
        })
        .map(str::trim)
        .filter(|field| !field.is_empty())
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// `10s` or `800ms`.
fn duration(value: &str) -> Result<Duration, String> {
    let (number, unit) = match value.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis(1)),
        None => (value.strip_suffix('s').unwrap_or_default(), Duration::from_secs(1)),
    };
    let number: u32 = number.parse().map_err(|_| format!("{value:?} is not a duration like 10s or 800ms"))?;
    Ok(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Replay {
        header.parse().unwrap_or_else(|error| panic!("{header}: {error}"))
    }

    #[test]
    fn every_documented_field_is_read() {
        let replay = read(
            r#"region="iad,ord,any"; prefer_instance=b2;app=counter;state="a=1;b=2";elsewhere=true;timeout=800ms;fallback=prefer_self"#,
        );
        let route = Route {
            preferred: Some("b2".to_owned()),
            regions: vec!["iad".to_owned(), "ord".to_owned(), "any".to_owned()],
            ..Route::default()
        };
        assert_eq!(
            replay,
            Replay {
                route,
                elsewhere: true,
                app: Some("counter".to_owned()),
                state: Some("a=1;b=2".to_owned()),
                timeout: Some(Duration::from_millis(800)),
                fallback: Some(Fallback::PreferSelf),
            }
        );
    }

    #[test]
    fn what_litefs_answers_is_read() {
        assert_eq!(read("instance=00bb33ff").route.only.as_deref(), Some("00bb33ff"));
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(read("region=iad;timeout=10s").timeout, Some(Duration::from_secs(10)));
        for nonsense in ["10", "s", "ms", "-1s", "1.5s", "99999999999999999999s", ""] {
            assert!(format!("timeout={nonsense}").parse::<Replay>().is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for nonsense in ["", ";", "instance", "planet=mars", "instance=a;fallback=maybe", "\"", "=;="] {
            assert!(nonsense.parse::<Replay>().is_err(), "{nonsense:?}");
        }
    }
}
