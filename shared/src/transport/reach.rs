//! By which of our addresses others reach us.
//!
//! Nothing is sent to find out: the kernel is only asked which way it would take.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// An address that is far away for everybody, one for each family. Public, and never written to.
const FAR: [&str; 2] = ["8.8.8.8:53", "[2001:4860:4860::8888]:53"];

/// The address of ours from which the way leads to `host:port`.
pub fn way_to(address: &str) -> Option<IpAddr> {
    let any: SocketAddr = if address.starts_with('[') {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The address that leads outside; `None` where none does.
pub fn outside() -> Option<IpAddr> {
    FAR.into_iter().find_map(way_to)
}

/// What others are told of an endpoint of ours. Nobody can call `tcp://0.0.0.0:4444`: who listens on all addresses is called at the one
/// that leads outside, or, where none does, at 127.0.0.1.
pub fn told(endpoint: &str) -> String {
    let any = |host: &str| {
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        ip.is_ok_and(|ip| ip.is_unspecified())
    };
    let address = endpoint.strip_prefix("tcp://").and_then(|address| address.rsplit_once(':'));
    let Some((_, port)) = address.filter(|(host, _)| any(host)) else {
        return endpoint.to_owned();
    };
    let ip = outside().unwrap_or_else(|| {
        tracing::warn!(endpoint, "no address leads outside: others are told 127.0.0.1");
        Ipv4Addr::LOCALHOST.into()
    });
    match ip {
        IpAddr::V6(ip) => format!("tcp://[{ip}]:{port}"),
        IpAddr::V4(ip) => format!("tcp://{ip}:{port}"),
    }
}

/// The address in an endpoint, as text.
pub fn host(endpoint: &str) -> Option<&str> {
    let (host, _) = endpoint.strip_prefix("tcp://")?.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_begins_at_an_address_of_ours() {
        assert_eq!(way_to("127.0.0.1:80"), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(way_to("nonsense"), None);
    }

    #[test]
    fn nobody_is_told_to_call_everywhere() {
        for anywhere in ["tcp://0.0.0.0:4444", "tcp://[::]:4444"] {
            let told = told(anywhere);
            let ip: IpAddr = host(&told).unwrap().parse().unwrap();
            assert!(!ip.is_unspecified() && told.ends_with(":4444"), "{told}");
        }
        for said in
            ["tcp://10.0.0.5:1", "tcp://[::1]:1", "ipc:///run/x", "tcp://name:1", "mock://a"]
        {
            assert_eq!(told(said), said);
        }
    }
}
