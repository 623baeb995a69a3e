//! Random sources: the merged table, and the difference from one table to the next.

use std::collections::BTreeMap;

use ambassador::config::grammar::parse_route;
use ambassador::diagnostic::Place;
use ambassador::route::{Layer, Listen, Route, diff, merge};

use super::rng::Rng;

fn route(rng: &mut Rng) -> Route {
    let listen = rng.pick(&["80", "127.0.0.1:80", "81", "80-82", "90", "80/udp", "/run/a"]);
    let name = rng.pick(&["", "?name=web", "?name=db", "?hold=1s"]);
    let target = rng.pick(&["a:1", "b:2", "10.0.0.1:3"]);
    parse_route(&format!("{listen}={target}{name}"), &Place::Argument(1)).unwrap()
}

pub(super) fn run(mut rng: Rng, steps: usize) {
    let mut layers = vec![Layer::default(); 3];
    let mut table = BTreeMap::new();
    let mut running: BTreeMap<Listen, Route> = BTreeMap::new();
    for _ in 0..steps {
        let changed = usize::try_from(rng.below(3)).unwrap();
        layers[changed].routes = (0..rng.below(4)).map(|_| route(&mut rng)).collect();
        let (new, shadowed) = merge(&layers);

        let difference = diff(&table, &new);
        difference.close.iter().for_each(|listen| assert!(running.remove(listen).is_some()));
        for route in difference.open {
            assert!(running.insert(route.listen.clone(), route).is_none());
        }
        for route in difference.replace {
            assert!(running.insert(route.listen.clone(), route).is_some());
        }

        assert!(
            running.len() == new.len() && running.values().zip(new.values()).all(|(a, b)| a.runs_like(b))
        );
        for (n, one) in running.values().enumerate() {
            assert!(running.values().skip(n + 1).all(|other| !one.excludes(other)), "{one}");
        }
        let count: usize = layers.iter().map(|layer| layer.routes.len()).sum();
        assert_eq!(new.len() + shadowed.len(), count, "every route is used or shadowed");
        table = new;
    }
}
