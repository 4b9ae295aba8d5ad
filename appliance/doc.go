// Package appliance builds the parts of the gateway and runs them in order.
package appliance
