"""Modbus, as its source and its sink need it: settings of a bus, what a register holds, requests and answers, the bus itself."""
