//! libzmq and nothing else: one frame there, one frame back.

use std::collections::VecDeque;
use std::time::Instant;

use crate::turns::{Figure, Plan, runtime};

pub fn serve(address: &str) {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::ROUTER).unwrap();
    socket.bind(address).unwrap();
    println!("{}", socket.get_last_endpoint().unwrap().unwrap());
    loop {
        let frames = socket.recv_multipart(0).unwrap();
        socket.send_multipart(frames, 0).unwrap();
    }
}

/// A DEALER takes its servers in turns by itself.
pub fn call(addresses: &[&str], plan: Plan) -> Figure {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::DEALER).unwrap();
    addresses.iter().for_each(|address| socket.connect(address).unwrap());
    let body = [b'x'; super::SIZE];
    let mut sent = VecDeque::new();
    let send = |sent: &mut VecDeque<Instant>| {
        sent.push_back(Instant::now());
        socket.send(body.as_slice(), 0).unwrap();
    };
    let turn = async |until: Instant| {
        let mut times = Vec::new();
        (0..plan.in_flight).for_each(|_| send(&mut sent));
        loop {
            assert_eq!(socket.recv_bytes(0).unwrap().len(), super::SIZE);
            times.push(sent.pop_front().unwrap().elapsed());
            if Instant::now() >= until {
                break;
            }
            send(&mut sent);
        }
        while sent.pop_front().is_some() {
            socket.recv_bytes(0).unwrap();
        }
        times
    };
    runtime().block_on(plan.run(turn))
}
