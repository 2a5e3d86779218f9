//! Builds, wires, starts and stops the services; configuration, telemetry, the system clock.
