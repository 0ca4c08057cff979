//! The feed's octets, however they are cut into pieces: the events are the same.
#![no_main]

use fleetmark_gateway::follow::sse::Parser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, octets) = input;
    let mut whole = Parser::default();
    let at_once = whole.push(octets);
    let mut parser = Parser::default();
    let mut piecemeal = Ok(Vec::new());
    for piece in octets.chunks(usize::from(size).max(1)) {
        match (parser.push(piece), &mut piecemeal) {
            (Ok(events), Ok(all)) => all.extend(events),
            (Err(error), _) => {
                piecemeal = Err(error);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(at_once, piecemeal);
    if at_once.is_ok() {
        assert_eq!(whole.last_id(), parser.last_id());
    }
});
