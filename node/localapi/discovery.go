package localapi

// Discovery tells how the node looks for peers beside those that are named to it.
type Discovery struct {
	LAN      LAN       `json:"lan"`
	DHT      DHT       `json:"dht"`
	Registry *Registry `json:"registry,omitempty"` // where one is configured
}

// LAN is discovery on the local links by multicast DNS.
type LAN struct {
	On bool `json:"on"`
	// Why tells why it is off, or works only partly.
	Why     string   `json:"why,omitempty"`
	Service string   `json:"service,omitempty"` // the name that is announced and asked for
	Links   []string `json:"links,omitempty"`   // interfaces that are used
	// Peers were heard in the last 10 minutes, connected ones too.
	Peers     int   `json:"peers"`
	LastHeard *Time `json:"last_heard"` // null: never
}

// DHT is the distributed hash table of the node's network.
type DHT struct {
	Mode string `json:"mode"` // off, client, server or auto
	// Why tells why it is off, or what it waits for.
	Why   string `json:"why,omitempty"`
	Table int    `json:"table"` // peers in the routing table
	// Found are the members that the last lookup brought, LastLookup is when that
	// was, and LastError what was wrong with it.
	Found      int    `json:"found"`
	LastLookup *Time  `json:"last_lookup"` // null: not yet
	LastError  string `json:"last_error,omitempty"`
}

// Registry is the HTTP registry that the node asks for peers.
type Registry struct {
	URL string `json:"url"`
	// Announced tells that it has taken this node's announcement; Why why none is
	// made.
	Announced   bool   `json:"announced"`
	Why         string `json:"why,omitempty"`
	LastSuccess *Time  `json:"last_success"` // null: never
	LastError   string `json:"last_error"`   // why not since, or why it refuses the announcement
	Failures    int    `json:"failures"`     // in a row
	Next        *Time  `json:"next"`         // when it is asked again
	Peers       int    `json:"peers"`        // other nodes in its last answer, not of another network
}
