package localapi

// Discovery tells how the node looks for peers beside those that are named to it.
type Discovery struct {
	LAN LAN `json:"lan"`
}

// LAN is discovery on the local links by multicast DNS.
type LAN struct {
	On bool `json:"on"`
	// Why tells why it is off, or works only partly.
	Why     string   `json:"why,omitempty"`
	Service string   `json:"service,omitempty"` // the name that is announced and asked for
	Links   []string `json:"links,omitempty"`   // interfaces that are used
	// Peers were heard in the last 10 minutes; one that is connected is not asked to
	// announce itself.
	Peers     int   `json:"peers"`
	LastHeard *Time `json:"last_heard"` // null: never
}
