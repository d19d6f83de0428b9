//! `ZMQ_XPUB_NODROP`, which the binding does not offer: a send is refused when a subscriber's queue is full, instead of
//! passing that subscriber over in silence.
#![allow(unsafe_code, reason = "one option of libzmq has no safe name")]

use std::os::raw::c_int;

/// Switches it for an XPUB; it is off in a new one.
pub(super) fn refuse_when_full(socket: &mut zmq::Socket, on: bool) -> zmq::Result<()> {
    let value = c_int::from(on);
    let option = zmq_sys::ZMQ_XPUB_NODROP as c_int;
    // SAFETY: the socket is open and ours alone, and the value is an int of the size that is said.
    let result = unsafe {
        zmq_sys::zmq_setsockopt(
            socket.as_mut_ptr(),
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<c_int>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(zmq::Error::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)))
    }
}
