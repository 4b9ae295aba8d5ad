// Command sixgate is an IPv4/IPv6 gateway that gives clients fake addresses of
// their own family and relays each connection to the real host behind the name.
package main
