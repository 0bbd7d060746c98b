package authority

import "time"

// EnrollmentStatus is where a device stands.
type EnrollmentStatus string

// The statuses.
const (
	EnrollmentPending  EnrollmentStatus = "pending"
	EnrollmentApproved EnrollmentStatus = "approved"
	EnrollmentRejected EnrollmentStatus = "rejected"
	EnrollmentExpired  EnrollmentStatus = "expired" // its attestation is over
	EnrollmentRevoked  EnrollmentStatus = "revoked"
)

// Enrolled reports whether the device is a member now.
func (s EnrollmentStatus) Enrolled() bool { return s == EnrollmentApproved }

// Renewable reports whether a new attestation makes, or keeps, it a member.
func (s EnrollmentStatus) Renewable() bool {
	return s == EnrollmentApproved || s == EnrollmentExpired
}

// MaxKeyAge is the age at which a node key must be replaced whatever its schedule.
const MaxKeyAge = 720 * time.Hour

// KeyRotation says whether a key of that age should, and whether it must, be
// replaced. every is its schedule.
func KeyRotation(age, every time.Duration) (should, must bool) {
	return age >= every, age >= MaxKeyAge
}

// StatusOf returns a device's status at a time: revoked wins, then an attestation
// that is over. Devices without any attestation stand by their enrollment.
func (a *Attestations) StatusOf(d *Device, at time.Time) EnrollmentStatus {
	_, err := a.At(d.Writer(), at)
	switch r := ReasonOf(err); {
	case r == ReasonAttestationRevoked:
		return EnrollmentRevoked
	case r == ReasonAttestationExpired:
		return EnrollmentExpired
	case at.Before(d.EnrolledAt()):
		return EnrollmentPending
	}
	return EnrollmentApproved
}
