//! The configuration files of the peers, from `benches/peers`.

use super::listening::Protocol::{Tcp, Udp};
use super::subject::{End, Kind, Route, Side, Splice};

/// Returns the file for this proxy; `None` if it has options only, or does not support the route.
pub(super) fn template(kind: Kind, route: &Route) -> Option<&'static str> {
    Some(match (kind, route.end, route.protocol) {
        (Kind::Haproxy(Splice::Off), End::Alone, Tcp) => include_str!("../../../benches/peers/haproxy.cfg"),
        (Kind::Haproxy(Splice::On), End::Alone, Tcp) => {
            include_str!("../../../benches/peers/haproxy-splice.cfg")
        }
        (Kind::Haproxy(_), End::Near, Tcp) => include_str!("../../../benches/peers/haproxy-near.cfg"),
        (Kind::Haproxy(_), End::Far, Tcp) => include_str!("../../../benches/peers/haproxy-far.cfg"),
        (Kind::Envoy, End::Alone, Tcp) => include_str!("../../../benches/peers/envoy.yaml"),
        (Kind::Envoy, End::Alone, Udp) => include_str!("../../../benches/peers/envoy-udp.yaml"),
        (Kind::Envoy, End::Near, Tcp) => include_str!("../../../benches/peers/envoy-near.yaml"),
        (Kind::Envoy, End::Far, Tcp) => include_str!("../../../benches/peers/envoy-far.yaml"),
        (Kind::Nginx, End::Alone, Tcp) => include_str!("../../../benches/peers/nginx.conf"),
        (Kind::Nginx, End::Alone, Udp) => include_str!("../../../benches/peers/nginx-udp.conf"),
        (Kind::Nginx, End::Near, Tcp) => include_str!("../../../benches/peers/nginx-near.conf"),
        (Kind::Nginx, End::Far, Tcp) => include_str!("../../../benches/peers/nginx-far.conf"),
        (Kind::Stunnel, End::Near, Tcp) => include_str!("../../../benches/peers/stunnel-near.conf"),
        (Kind::Stunnel, End::Far, Tcp) => include_str!("../../../benches/peers/stunnel-far.conf"),
        (Kind::Haproxy(_), End::Tls(Side::Accept), Tcp) => {
            include_str!("../../../benches/peers/haproxy-accept.cfg")
        }
        (Kind::Haproxy(_), End::Tls(Side::Connect), Tcp) => {
            include_str!("../../../benches/peers/haproxy-connect.cfg")
        }
        (Kind::Haproxy(_), End::Opposite(Side::Accept, _), Tcp) => {
            include_str!("../../../benches/peers/opposite-accept.cfg")
        }
        (Kind::Haproxy(_), End::Opposite(Side::Connect, _), Tcp) => {
            include_str!("../../../benches/peers/opposite-connect.cfg")
        }
        (Kind::Envoy, End::Tls(Side::Accept), Tcp) => {
            include_str!("../../../benches/peers/envoy-accept.yaml")
        }
        (Kind::Envoy, End::Tls(Side::Connect), Tcp) => {
            include_str!("../../../benches/peers/envoy-connect.yaml")
        }
        (Kind::Nginx, End::Tls(Side::Accept), Tcp) => {
            include_str!("../../../benches/peers/nginx-accept.conf")
        }
        (Kind::Nginx, End::Tls(Side::Connect), Tcp) => {
            include_str!("../../../benches/peers/nginx-connect.conf")
        }
        (Kind::Stunnel, End::Tls(Side::Accept), Tcp) => {
            include_str!("../../../benches/peers/stunnel-accept.conf")
        }
        (Kind::Stunnel, End::Tls(Side::Connect), Tcp) => {
            include_str!("../../../benches/peers/stunnel-connect.conf")
        }
        _ => return None,
    })
}
