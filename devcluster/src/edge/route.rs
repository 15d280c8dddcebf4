//! Which instances are in question for a request, and in which order. Only thinks, never connects.

use std::{cmp::Reverse, time::Duration};

use axum::http::HeaderMap;

use super::{Backend, BackendState};
use crate::geography;

/// What is asked of the instance that takes a request; by default nothing, so that it is the nearest one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Route {
    /// This instance and no other.
    pub only: Option<String>,
    /// This instance, if it can be had.
    pub preferred: Option<String>,
    /// Regions or areas, the best first; empty for all.
    pub regions: Vec<String>,
    /// Any instance but this one.
    pub except: Option<String>,
}

impl Route {
    /// What the visitor's own headers ask for. A `fly-force-` header beats its `fly-prefer-` counterpart.
    pub fn of_visitor(headers: &HeaderMap) -> Route {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let forced = text("fly-force-region").map(|list| regions(&list));
        let preferred = text("fly-prefer-region").map(|list| {
            let mut regions = regions(&list);
            regions.push("any".to_owned());
            regions
        });
        Route {
            only: text("fly-force-instance-id"),
            preferred: text("fly-prefer-instance-id"),
            regions: forced.or(preferred).unwrap_or_default(),
            except: None,
        }
    }

    /// The instances that fit, the best first: started ones, and one that is stopping only where it is named. Among equals `turn` says who comes first, so that
    /// counting it up shares the load.
    pub fn candidates(&self, backends: &[Backend], from: &str, turn: usize) -> Vec<Backend> {
        let mut ranked: Vec<(Rank, &Backend)> =
            backends.iter().filter_map(|backend| Some((self.rank(backend, from)?, backend))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let equals = ranked.iter().take_while(|(rank, _)| *rank == ranked[0].0).count();
        if equals > 0 {
            ranked[..equals].rotate_left(turn % equals);
        }
        ranked.into_iter().map(|(_, backend)| backend.clone()).collect()
    }

    /// None where the instance is out of the question.
    fn rank(&self, backend: &Backend, from: &str) -> Option<Rank> {
        let id = Some(&backend.id);
        // Fly does not say what becomes of a replay that names an instance which is about to stop. It still answers, and
        // that it stops is news that takes longer to every edge than a request.
        let is_named = self.only.as_ref() == id;
        if backend.state == BackendState::Stopping && !is_named
            || self.only.is_some() && self.only.as_ref() != id
            || self.except.as_ref() == id
        {
            return None;
        }
        let region = match self.regions.as_slice() {
            [] => 0,
            regions => regions.iter().position(|name| geography::is_within(&backend.region, name))?,
        };
        let is_preferred = self.preferred.as_ref() == id;
        Some((Reverse(is_preferred), region, geography::round_trip(from, &backend.region)))
    }
}

/// Smaller is better: the preferred instance, then the place in the list of regions, then the distance.
type Rank = (Reverse<bool>, usize, Duration);

/// `iad,ord,any`
pub(super) fn regions(list: &str) -> Vec<String> {
    list.split(',').map(|region| region.trim().to_owned()).filter(|region| !region.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(id: &str, region: &str) -> Backend {
        let address = ([127, 0, 0, 1], 1).into();
        Backend { id: id.to_owned(), region: region.to_owned(), address, state: BackendState::Started }
    }

    fn order(route: &Route, turn: usize) -> Vec<String> {
        let backends =
            [backend("s1", "syd"), backend("j1", "sjc"), backend("j2", "sjc"), backend("a1", "ams")];
        route.candidates(&backends, "lax", turn).into_iter().map(|backend| backend.id).collect()
    }

    #[test]
    fn the_nearest_come_first_and_take_turns() {
        assert_eq!(order(&Route::default(), 0), ["j1", "j2", "a1", "s1"]);
        assert_eq!(order(&Route::default(), 1), ["j2", "j1", "a1", "s1"]);
    }

    #[test]
    fn regions_come_in_the_order_given_and_the_rest_only_with_any() {
        let route = |list| Route { regions: regions(list), ..Route::default() };
        assert_eq!(order(&route("syd,ams"), 0), ["s1", "a1"]);
        assert_eq!(order(&route("eu,any"), 0), ["a1", "j1", "j2", "s1"]);
        assert!(order(&route("gru"), 0).is_empty());
    }

    #[test]
    fn one_instance_can_be_asked_for_preferred_or_left_out() {
        let named = Some("s1".to_owned());
        assert_eq!(order(&Route { only: named.clone(), ..Route::default() }, 0), ["s1"]);
        assert_eq!(
            order(&Route { preferred: named.clone(), ..Route::default() }, 0),
            ["s1", "j1", "j2", "a1"]
        );
        assert_eq!(order(&Route { except: named, ..Route::default() }, 0), ["j1", "j2", "a1"]);
    }
}
