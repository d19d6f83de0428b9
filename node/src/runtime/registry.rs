//! Calls of interface `registry`: who asks is found out here, what becomes of it the core decides.

use hilum_shared::registry::directory::Register;
use hilum_shared::rpc::router::PeerId;

use super::Runtime;
use super::abroad::entries;
use crate::core::input::{Entry, Input, Owner, RequestId};

impl Runtime {
    pub(super) fn register(&mut self, id: RequestId, peer: &PeerId, register: Register) {
        let Register { service, instance, token } = register;
        let owner = match token {
            None => peer_owner(peer),
            Some(token) => match self.parts.roster.owner(&token) {
                Some((instance, run)) => Owner::Run(instance, run),
                None => {
                    self.parts.counters.count("registry: unknown token");
                    let message = "the token is of no run of this node".to_owned();
                    return self.refuse(id, "refused", message);
                }
            },
        };
        let entry = Entry::Register { service, instance: Box::new(instance) };
        self.queue.push_back(Input::Entry { id, owner, entry });
    }

    pub(super) fn entry(&mut self, id: RequestId, peer: &PeerId, entry: Entry) {
        self.queue.push_back(Input::Entry { id, owner: peer_owner(peer), entry });
    }

    pub(super) fn departed(&mut self, peer: &PeerId) {
        self.queue.push_back(Input::Departed(peer_owner(peer)));
    }

    /// The node is a service like others.
    pub(super) fn register_itself(&mut self) {
        let endpoint = self.context.endpoints.node.clone();
        let log_endpoint = Some(self.context.endpoints.log_endpoint.clone());
        let ip = Some(self.context.container_ip.to_string());
        for (service, instance) in entries(&endpoint, ip, log_endpoint) {
            let entry =
                Entry::Register { service: service.to_owned(), instance: Box::new(instance) };
            self.queue.push_back(Input::Entry { id: RequestId(0), owner: Owner::Node, entry });
        }
    }
}

fn peer_owner(peer: &PeerId) -> Owner {
    use std::fmt::Write;
    let mut hex = String::new();
    for byte in &peer.0 {
        let _ = write!(hex, "{byte:02x}"); // a String takes all
    }
    Owner::Peer(hex)
}
