package dnsfake

import (
	"slices"

	"github.com/miekg/dns"
)

// rewrite removes the real addresses from an answer to a query for something
// else: a client that has them would go around the gateway, or get nowhere.
func rewrite(a answer) answer {
	stripped := make(map[uint16]bool) // types whose signatures no longer hold
	for _, rr := range slices.Concat(a.rrs, a.extra) {
		switch rr := rr.(type) {
		case *dns.HTTPS:
			if stripHints(&rr.SVCB) {
				stripped[dns.TypeHTTPS] = true
			}
		case *dns.SVCB:
			if stripHints(rr) {
				stripped[dns.TypeSVCB] = true
			}
		}
	}
	signed := func(rr dns.RR) bool {
		sig, ok := rr.(*dns.RRSIG)
		return ok && stripped[sig.TypeCovered]
	}
	a.rrs = slices.DeleteFunc(a.rrs, signed)
	a.extra = slices.DeleteFunc(a.extra, func(rr dns.RR) bool { return signed(rr) || isAddress(rr) })
	return a
}

// isAddress reports whether rr is an address or the signature of one.
func isAddress(rr dns.RR) bool {
	t := rr.Header().Rrtype
	if sig, ok := rr.(*dns.RRSIG); ok {
		t = sig.TypeCovered
	}
	return t == dns.TypeA || t == dns.TypeAAAA
}

// stripHints removes the address hints from rr (RFC 9460, section 7.3), also
// from what it declares mandatory, and reports whether there were any.
func stripHints(rr *dns.SVCB) bool {
	isHint := func(k dns.SVCBKey) bool { return k == dns.SVCB_IPV4HINT || k == dns.SVCB_IPV6HINT }
	before := len(rr.Value)
	rr.Value = slices.DeleteFunc(rr.Value, func(kv dns.SVCBKeyValue) bool { return isHint(kv.Key()) })
	if len(rr.Value) == before {
		return false
	}
	rr.Value = slices.DeleteFunc(rr.Value, func(kv dns.SVCBKeyValue) bool {
		mandatory, ok := kv.(*dns.SVCBMandatory)
		if !ok {
			return false
		}
		mandatory.Code = slices.DeleteFunc(mandatory.Code, isHint)
		return len(mandatory.Code) == 0
	})
	return true
}
