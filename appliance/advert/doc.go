// Package advert speaks of routers to hosts by the advertisements of Neighbor
// Discovery (RFC 4861).
package advert
