//! Whole trees: real processes of the real binary, real sockets, kill -9.
//!
//! | module | what it shows |
//! |---|---|
//! | `layers` | who may import whom, and where sled and rumqttc are named |
//! | `cap` | alarms out and warnings in by CAP, and what follows below |
//! | `cases` | pressed, answered, handed over, closed and counted, whatever is cut or killed |
//! | `real_input` | cities' own service requests as cases: every count and time as their files say |
//! | `residents` | a citizens' app: press, book, follow, cancel, judge, and nothing of others' |
//! | `rights` | who may connect, publish and subscribe by MQTT, to the code and the counter |
//! | `rules` | rules fire, alarms climb, are acknowledged and cleared, whatever is killed |
//! | `tree` | events up, directives down, receipts, urgency, a cut and a restart at each tier |
//! | `bad_input` | rubbish at the front door: answered, kept, counted, and nobody else is disturbed |
//! | `carried` | a range of a log replayed to a sink, a log exported and imported |
//! | `clients` | MQTT clients that we did not write |
//! | `devices` | devices from a shop, Home Assistant |
//! | `doors` | TLS, client certificates, WebSocket, links by TLS |
//! | `pages` | links between the pages for people, here and in the Debian package |
//! | `outside_broker` | the same tree over Mosquitto, NATS and RabbitMQ, killed in mid-stream |
//! | `disk` | damaged and deleted state, torn and flipped log |
//! | `limits` | a long backlog, a time budget that is over, one address claimed twice, nothing to warn of |
//! | `operations` | the questions of docs/operations.md: each fault made, each answer compared |
//! | `ops` | stores by hand, dead letters settled, doctor, levels, config, metrics |
//! | `open311` | GeoReport v2: golden answers, wrong input, keys, a request's whole life |
//! | `openapi` | every route of the API asked, every answer compared with its document |
//! | `platforms` | tags, changes asked for twice, a supervisor's token, a bound of requests |
//! | `walks` | README and pages of docs typed command by command, each answer compared |
//! | `webhooks` | events POSTed to other platforms, over failures and kills |
//! | `access` | who may ask a node over HTTP and change it, contexts, changes through the links |
//! | `schemas` | answers for programs keep their shape |
//! | `standards` | our documents of the API and the events against the schemas of OpenAPI and AsyncAPI |
//! | `handed_on` | terms, calendars and requests that go to other nodes, and letters that are not for all eyes |
//! | `exit_codes` | every command: wrong, not there, not found; each error says what to type next |
//! | `cli` | the commands, their answers and their exit codes |
//! | `enrol` | boxes that wait until an operator lets them in |
//! | `inspect` | any node asked through the links, traces, why, audits, stopped nodes' folders |

mod harness;

mod access;
mod bad_input;
mod cap;
mod carried;
mod cases;
mod cli;
mod clients;
mod devices;
mod disk;
mod doors;
mod enrol;
mod exit_codes;
mod handed_on;
mod inspect;
mod layers;
mod limits;
mod open311;
mod openapi;
mod operations;
mod ops;
mod outside_broker;
mod pages;
mod platforms;
mod real_input;
mod residents;
mod rights;
mod rules;
mod schemas;
mod standards;
mod tree;
mod walks;
mod webhooks;
