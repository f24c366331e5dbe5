//! The store against a model of it: changes, stops and crashes in any order, and after each of them
//! everything that can be seen has to be as the model says.
//!
//! A short run belongs to `cargo test`; `MODEL_TRANSITIONS=100000` asks for a longer one.

mod driver;
mod model;
mod moves;
mod seen;
mod told;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use driver::Driver;
use model::Model;
use moves::Move;

/// So many moves are made with one database.
const MOVES: usize = 60;
/// So many are made if nobody asks for more.
const SHORT_RUN: usize = 1200;

struct Reference;

impl ReferenceStateMachine for Reference {
    type State = Model;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::default()).boxed()
    }

    fn preconditions(model: &Model, next: &Move) -> bool {
        moves::is_possible(model, next)
    }

    fn transitions(model: &Model) -> BoxedStrategy<Move> {
        moves::any_move(model)
    }

    fn apply(mut model: Model, next: &Move) -> Model {
        model.make(next);
        model
    }
}

struct RealStore;

impl StateMachineTest for RealStore {
    type SystemUnderTest = Driver;
    type Reference = Reference;

    fn init_test(_: &Model) -> Driver {
        Driver::start()
    }

    fn apply(driver: Driver, model: &Model, next: Move) -> Driver {
        driver.make(&next, model)
    }

    fn check_invariants(driver: &Driver, model: &Model) {
        driver.compare(model);
    }
}

fn config() -> ProptestConfig {
    let moves = match std::env::var("MODEL_TRANSITIONS") {
        Ok(number) => number.parse().expect("MODEL_TRANSITIONS is a number"),
        Err(_) => SHORT_RUN,
    };
    ProptestConfig {
        cases: u32::try_from(moves.div_ceil(MOVES)).expect("no run is that long"),
        failure_persistence: None,
        max_local_rejects: u32::MAX,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn the_store_does_what_its_model_does(sequential MOVES => RealStore);
}
